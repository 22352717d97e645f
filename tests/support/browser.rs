//! A browser without a window, driven over WebDriver: chromedriver and Chromium.
//!
//! The few words of the protocol that a page's test needs. The browser resolves no name and phones nobody.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;

use super::peers::Peer;
use super::{free_address, wait_for};

/// For the start of the browser, on a machine that does other things as well, and for each of its answers.
const PATIENCE: Duration = Duration::from_secs(60);

/// A browser with one page. It ends when dropped.
pub struct Browser {
    driver: Child,
    address: SocketAddr,
    session: String,
    _home: TempDir,
}

impl Browser {
    /// Starts it; `None` where it is not installed.
    pub fn start() -> Option<Self> {
        let (driver, chromium) = (Peer::Chromedriver.path()?, Peer::Chromium.path()?);
        // chromedriver listens on 127.0.0.1 alone; the port is free there too, most likely.
        let address = SocketAddr::from(([127, 0, 0, 1], free_address().port()));
        let home = tempfile::tempdir().unwrap();
        let mut command = Command::new(driver);
        command.arg(format!("--port={}", address.port())).env("HOME", home.path()).env("TMPDIR", home.path());
        let driver = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let mut browser = Self { driver, address, session: String::new(), _home: home };
        wait_for("chromedriver", PATIENCE, || TcpStream::connect(address).ok());
        let arguments = [
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-default-apps",
            "--disable-sync",
            "--no-first-run",
            "--no-proxy-server",
            "--hide-scrollbars",
            "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.*",
        ];
        let wanted = json!({ "capabilities": { "alwaysMatch": {
            "browserName": "chrome",
            "goog:chromeOptions": { "binary": chromium, "args": arguments },
            "goog:loggingPrefs": { "browser": "ALL", "performance": "ALL" },
        } } });
        let answer = browser.say("POST", "/session", &wanted);
        browser.session = answer["sessionId"].as_str().unwrap_or_else(|| panic!("no session: {answer}")).to_owned();
        Some(browser)
    }

    pub fn open(&self, url: &str) {
        self.ask("/url", &json!({ "url": url }));
    }

    /// The value of an expression in the page.
    pub fn value(&self, expression: &str) -> Value {
        self.ask("/execute/sync", &json!({ "script": format!("return {expression}"), "args": [] }))
    }

    /// The text of the first element that fits a selector; empty where there is none.
    pub fn text(&self, selector: &str) -> String {
        let found = self.value(&format!("(document.querySelector({}) || {{}}).textContent || ''", json!(selector)));
        found.as_str().unwrap_or_default().to_owned()
    }

    /// Looks as on a screen of this width in CSS pixels, in the dark or not.
    pub fn look(&self, width: u32, dark: bool) {
        let mobile = width < 500;
        self.tell(
            "Emulation.setDeviceMetricsOverride",
            &json!({
                "width": width, "height": 900, "deviceScaleFactor": 1, "mobile": mobile,
            }),
        );
        let scheme = if dark { "dark" } else { "light" };
        let features = json!([{ "name": "prefers-color-scheme", "value": scheme }]);
        self.tell("Emulation.setEmulatedMedia", &json!({ "features": features }));
    }

    /// Writes the whole page, as it looks, to a file.
    pub fn shoot(&self, file: &Path) {
        let shot = self.tell("Page.captureScreenshot", &json!({ "captureBeyondViewport": true, "format": "png" }));
        std::fs::write(file, from_base64(shot["data"].as_str().unwrap())).unwrap();
    }

    /// What the page wrote to its console since the last call, level and text.
    pub fn console(&self) -> Vec<(String, String)> {
        let lines = self.ask("/se/log", &json!({ "type": "browser" }));
        let text = |line: &Value, key: &str| line[key].as_str().unwrap_or_default().to_owned();
        lines.as_array().into_iter().flatten().map(|line| (text(line, "level"), text(line, "message"))).collect()
    }

    /// The addresses that the page asked since the last call, each with how often.
    pub fn requests(&self) -> HashMap<String, usize> {
        let mut found = HashMap::new();
        let lines = self.ask("/se/log", &json!({ "type": "performance" }));
        for line in lines.as_array().into_iter().flatten() {
            let event: Value = serde_json::from_str(line["message"].as_str().unwrap_or("null")).unwrap_or_default();
            let event = &event["message"];
            if event["method"] == "Network.requestWillBeSent"
                && let Some(url) = event["params"]["request"]["url"].as_str()
            {
                *found.entry(url.to_owned()).or_default() += 1;
            }
        }
        found
    }

    fn tell(&self, command: &str, parameters: &Value) -> Value {
        self.ask("/goog/cdp/execute", &json!({ "cmd": command, "params": parameters }))
    }

    fn ask(&self, path: &str, body: &Value) -> Value {
        self.say("POST", &format!("/session/{}{path}", self.session), body)
    }

    fn say(&self, method: &str, path: &str, body: &Value) -> Value {
        let body = if method == "POST" { body.to_string() } else { String::new() };
        let mut stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: {}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\
             Connection: close\r\n\r\n{body}",
            self.address,
            body.len()
        );
        stream.write_all(head.as_bytes()).unwrap();
        let answer = read_answer(&mut stream);
        let answer: Value = serde_json::from_slice(&answer).unwrap_or_else(|e| panic!("{method} {path}: {e}"));
        assert!(answer["value"]["error"].is_null(), "{method} {path}: {answer}");
        answer["value"].clone()
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        if !self.session.is_empty() && !std::thread::panicking() {
            self.say("DELETE", &format!("/session/{}", self.session), &Value::Null);
        }
        let _ = self.driver.kill();
        let _ = self.driver.wait();
    }
}

/// The body of an answer with a length: the connection may stay open behind it.
fn read_answer(stream: &mut TcpStream) -> Vec<u8> {
    let (mut text, mut room) = (Vec::new(), [0; 65_536]);
    loop {
        let read = stream.read(&mut room).expect("the browser does not answer");
        text.extend_from_slice(&room[..read]);
        let Some(end) = text.windows(4).position(|w| w == b"\r\n\r\n") else {
            assert!(read > 0, "no head");
            continue;
        };
        let head = String::from_utf8_lossy(&text[..end]).to_ascii_lowercase();
        let length = head.lines().find_map(|l| l.strip_prefix("content-length:")?.trim().parse::<usize>().ok());
        if read == 0 || length.is_some_and(|length| text.len() >= end + 4 + length) {
            return text.split_off(end + 4);
        }
    }
}

fn from_base64(text: &str) -> Vec<u8> {
    let value = |c: u8| match c {
        b'A'..=b'Z' => c - b'A',
        b'a'..=b'z' => c - b'a' + 26,
        b'0'..=b'9' => c - b'0' + 52,
        b'+' => 62,
        _ => 63,
    };
    let digits: Vec<u8> = text.bytes().filter(|c| *c != b'=').map(value).collect();
    let bits = |four: &[u8]| four.iter().enumerate().fold(0u32, |all, (n, d)| all | u32::from(*d) << (18 - 6 * n));
    digits.chunks(4).flat_map(|four| bits(four).to_be_bytes()[1..four.len()].to_vec()).collect()
}

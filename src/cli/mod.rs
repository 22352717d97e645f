//! The command line: parse it, run one command, end with its exit code.
//!
//! Not pure. Data goes to stdout, talk to stderr. Help, completions and man page come from the one definition here.
//!
//! Exit codes: 0 fine, 1 the configuration or the question is at fault, 2 usage, 3 the system refused (port in use,
//! permission), 4 no running process could be reached.

mod ask;
mod bundle;
mod drill;
mod import;
pub mod render;
mod start;
mod stub;
mod top;

use std::ffi::OsString;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, CommandFactory, Parser, Subcommand, ValueHint};
use clap_complete::Shell;

use crate::config::{default_text, human};
use crate::limits;
use crate::observe::control::FlushText;
use crate::wire::Name;

use crate::upkeep::source::{ConfigSource, shown_path};

/// All is well.
pub const EXIT_FINE: u8 = 0;
/// The configuration or the question is at fault.
pub const EXIT_FAULT: u8 = 1;
/// The command line makes no sense; clap's own code.
pub const EXIT_USAGE: u8 = 2;
/// The system refused: a port in use, a permission.
pub const EXIT_SYSTEM: u8 = 3;
/// No running process could be reached.
pub const EXIT_NOT_REACHABLE: u8 = 4;

/// A DNS caching resolver for every node that keeps answering when what is behind it has a bad day.
///
/// Without a command it serves: on 127.0.0.1 and ::1, port 1053, with the system's own servers as upstreams, or as
/// /etc/evenkeel/evenkeel.toml says where that is there.
#[derive(Debug, Parser)]
#[command(name = "evenkeel", disable_version_flag = true, disable_help_subcommand = true)]
#[command(after_help = "Exit codes: 0 fine, 1 configuration or question at fault, 2 usage, 3 the system refused, \
                        4 not reachable.")]
struct Arguments {
    /// Control socket, where it is not at its default place
    #[arg(long, global = true, value_name = "PATH", value_hint = ValueHint::FilePath)]
    socket: Option<PathBuf>,

    /// Print the version
    #[arg(long, short = 'V')]
    version: bool,

    /// With --version: as JSON
    #[arg(long, requires = "version")]
    json: bool,

    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve until SIGTERM; SIGHUP applies the configuration anew
    Serve(ServeArguments),
    /// Read a configuration as the daemon would, and report every mistake
    Check {
        /// The file; /etc/evenkeel/evenkeel.toml if it is there, else the built-in defaults
        #[arg(value_name = "FILE", value_hint = ValueHint::FilePath)]
        file: Option<PathBuf>,
        #[command(flatten)]
        sets: Sets,
    },
    /// What the running process would do with a question now, and why
    Explain {
        /// The name that is asked for
        name: String,
        /// Its type: a mnemonic, or TYPE123
        #[arg(value_name = "TYPE", default_value = "A")]
        qtype: String,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Health, tiers, cache, rates and effective configuration of the running process
    Status {
        /// As JSON
        #[arg(long, conflicts_with = "check")]
        json: bool,
        /// Exit code only: 0 where the process answers, whatever state its upstreams are in; 4 where it does not
        #[arg(long)]
        check: bool,
    },
    /// The status, live in the terminal; q quits
    Top,
    /// One file for a bug report: status, metrics, configuration, events, system; secrets blanked
    SupportBundle {
        /// The file, a tar.gz; none is written over
        #[arg(value_name = "FILE", value_hint = ValueHint::FilePath)]
        file: Option<PathBuf>,
        /// The configuration, where the process does not answer
        #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
        config: Option<PathBuf>,
    },
    /// Apply the configuration file as it is now; a bad one is refused whole
    Reload,
    /// Let go of cached answers
    Flush(FlushArguments),
    /// Give nothing good up for a while: no tier moves up, no good answer turns negative or is too old
    Freeze {
        /// For how long, at most a day
        #[arg(long = "for", value_name = "SPAN", default_value = "1h", value_parser = parse_freeze)]
        span: Duration,
    },
    /// End a freeze
    Thaw,
    /// End the hold on a guarded name: what upstreams say of it is taken
    Release {
        /// The name
        name: Name,
    },
    /// Point this machine's resolv.conf at evenkeel, and back
    #[command(subcommand)]
    Stub(Stub),
    /// Rehearse an outage: a scripted bad day in virtual time, under your own configuration
    ///
    /// Upstreams are replaced by simulated ones; everything else is as it serves. Ends with 1 where an objective is
    /// missed. Without a scenario: all that come with the program.
    Drill {
        /// A scenario's name, or a file
        #[arg(value_name = "SCENARIO|FILE", value_hint = ValueHint::FilePath)]
        what: Option<String>,
        /// Name the scenarios, and run none
        #[arg(long)]
        list: bool,
        /// Print what /metrics would have shown this often, as input_series for `promtool test rules`, and no verdict
        #[arg(long, value_name = "SPAN", value_parser = parse_series, requires = "what")]
        #[arg(conflicts_with_all = ["list", "json"])]
        series: Option<Duration>,
        /// The configuration; /etc/evenkeel/evenkeel.toml if it is there, else the built-in defaults
        #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
        config: Option<PathBuf>,
        #[command(flatten)]
        sets: Sets,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Translate the configuration of another resolver; what has no counterpart is said
    ///
    /// The configuration goes to stdout. Each line without a counterpart is a comment in it, and a line on stderr.
    Import {
        /// Whose configuration it is
        #[arg(value_enum)]
        format: import::Word,
        /// The file; - is stdin
        #[arg(value_name = "FILE", value_hint = ValueHint::FilePath)]
        file: PathBuf,
    },
    /// The commented default configuration
    DefaultConfig,
    /// Completions for a shell
    Completions {
        /// The shell
        shell: Shell,
    },
    /// The man page, or that of one command
    Man {
        /// The command
        #[arg(value_name = "COMMAND")]
        command: Option<String>,
    },
}

#[derive(Debug, Subcommand)]
enum Stub {
    /// Point resolv.conf at the running evenkeel, once it answers there; what was there is kept
    Enable {
        /// Print what would be done, and do nothing
        #[arg(long)]
        dry_run: bool,
    },
    /// Put back what was there
    Disable {
        /// Over what somebody else has written since, and though what is put back names no server, or evenkeel alone
        #[arg(long)]
        force: bool,
        /// Print what would be done, and do nothing
        #[arg(long)]
        dry_run: bool,
    },
}

#[derive(Args, Debug, Default)]
struct ServeArguments {
    /// The configuration; /etc/evenkeel/evenkeel.toml if it is there, else the built-in defaults
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    config: Option<PathBuf>,
    #[command(flatten)]
    sets: Sets,
    /// Apply the file whenever it changes
    #[arg(long)]
    watch: bool,
    /// End with exit code 1 where the file is refused, instead of using the last accepted one
    #[arg(long)]
    strict: bool,
}

#[derive(Args, Debug, Default)]
struct Sets {
    /// A key that stands over the file's: --set listen.dns=127.0.0.1:53, --set 'groups.default.primary=["192.0.2.1"]'
    #[arg(long = "set", value_name = "KEY=VALUE", value_parser = parse_set)]
    sets: Vec<(String, String)>,
}

#[derive(Args, Debug)]
#[group(required = true, multiple = false)]
struct FlushArguments {
    /// One name, all its types
    name: Option<Name>,
    /// A name and all below it
    #[arg(long)]
    zone: Option<Name>,
    /// Everything
    #[arg(long)]
    all: bool,
}

/// Runs the command of this process's arguments.
pub fn run() -> ExitCode {
    ExitCode::from(run_with(std::env::args_os()))
}

fn run_with(arguments: impl IntoIterator<Item = OsString>) -> u8 {
    let Arguments { socket, version, json, command } = match Arguments::try_parse_from(arguments) {
        Ok(arguments) => arguments,
        Err(e) => {
            // Help is asked for and goes to stdout, a mistake to stderr; clap knows which is which.
            let _ = e.print();
            return u8::try_from(e.exit_code()).unwrap_or(EXIT_USAGE);
        }
    };
    if version {
        return print(&version_text(json));
    }
    match command.unwrap_or_else(|| Command::Serve(ServeArguments::default())) {
        Command::Serve(ServeArguments { config, sets, watch, strict }) => {
            let mut sets = sets.sets;
            sets.extend(socket.map(|path| ("admin.socket".to_owned(), path.display().to_string())));
            start::serve(ConfigSource { file: config, sets }, watch, strict)
        }
        Command::Check { file, sets } => check(&ConfigSource { file, sets: sets.sets }),
        Command::Explain { name, qtype, json } => ask::explain(socket.as_deref(), &name, &qtype, json),
        Command::Status { json, check } => ask::status(socket.as_deref(), json, check),
        Command::Top => top::top(socket.as_deref()),
        Command::SupportBundle { file, config } => {
            bundle::bundle(socket.as_deref(), file, &ConfigSource { file: config, sets: Vec::new() })
        }
        Command::Reload => ask::reload(socket.as_deref()),
        Command::Flush(FlushArguments { name, zone, .. }) => {
            let what = match (name, zone) {
                (Some(name), _) => FlushText::Name(name.to_string()),
                (None, Some(zone)) => FlushText::Zone(zone.to_string()),
                (None, None) => FlushText::All,
            };
            ask::flush(socket.as_deref(), what)
        }
        Command::Freeze { span } => ask::freeze(socket.as_deref(), span),
        Command::Thaw => ask::thaw(socket.as_deref()),
        Command::Release { name } => ask::release(socket.as_deref(), &name),
        Command::Stub(Stub::Enable { dry_run }) => stub::enable(socket.as_deref(), dry_run),
        Command::Stub(Stub::Disable { force, dry_run }) => stub::disable(socket.as_deref(), force, dry_run),
        Command::Drill { what, list, series, config, sets, json } => {
            let source = ConfigSource { file: config, sets: sets.sets };
            drill::drill(what.as_deref(), &source, drill::Shape { list, json, series })
        }
        Command::Import { format, file } => import::import(format, &file),
        Command::DefaultConfig => print(&default_text()),
        Command::Completions { shell } => {
            let mut out = Vec::new();
            clap_complete::generate(shell, &mut Arguments::command(), "evenkeel", &mut out);
            print(&String::from_utf8_lossy(&out))
        }
        Command::Man { command } => man(command.as_deref()),
    }
}

fn parse_set(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("write KEY=VALUE")?;
    Ok((key.trim().to_owned(), value.trim().to_owned()))
}

fn parse_freeze(text: &str) -> Result<Duration, String> {
    let bound = &limits::FREEZE;
    match human::span(text) {
        Some(span) if (bound.min..=bound.max).contains(&span) => Ok(span),
        Some(_) => Err(format!("from {} to {}", human::show_span(bound.min), human::show_span(bound.max))),
        None => Err(human::SPAN_HINT.to_owned()),
    }
}

fn parse_series(text: &str) -> Result<Duration, String> {
    match human::span(text) {
        Some(span) if span >= Duration::from_secs(1) => Ok(span),
        Some(_) => Err("from 1s on".to_owned()),
        None => Err(human::SPAN_HINT.to_owned()),
    }
}

fn version_text(json: bool) -> String {
    let version = env!("CARGO_PKG_VERSION");
    if json {
        let about = serde_json::json!({
            "name": "evenkeel",
            "version": version,
            "os": std::env::consts::OS,
            "architecture": std::env::consts::ARCH,
        });
        format!("{about}\n")
    } else {
        format!("evenkeel {version}\n")
    }
}

/// Here the report is what was asked for, so it goes to stdout, warnings and all.
fn check(source: &ConfigSource) -> u8 {
    match source.load() {
        Ok(loaded) => {
            let file = shown_path(loaded.path.as_deref());
            let mut out = String::new();
            for warning in &loaded.warnings {
                out += &format!("{}\n", warning.shown(&file));
            }
            print(&format!("{out}{file}: no mistakes\n"))
        }
        Err(refused) => {
            print(&format!("{refused}\n"));
            EXIT_FAULT
        }
    }
}

fn man(command: Option<&str>) -> u8 {
    let mut page = Arguments::command();
    page.build();
    if let Some(name) = command {
        let Some(found) = page.find_subcommand(name) else {
            talk(&format!("evenkeel: no command {name:?}"));
            return EXIT_USAGE;
        };
        page = found.clone();
    }
    let mut out = Vec::new();
    let source = format!("evenkeel {}", env!("CARGO_PKG_VERSION"));
    match clap_mangen::Man::new(page).source(source).render(&mut out) {
        Ok(()) => print(&String::from_utf8_lossy(&out)),
        Err(e) => {
            talk(&format!("evenkeel: {e}"));
            EXIT_SYSTEM
        }
    }
}

/// Writes data to stdout. A reader that went away (`| head`) is no error.
fn print(text: &str) -> u8 {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(e) if e.kind() != io::ErrorKind::BrokenPipe => {
            talk(&format!("evenkeel: stdout: {e}"));
            EXIT_SYSTEM
        }
        _ => EXIT_FINE,
    }
}

/// Says a line to the operator.
fn talk(text: &str) {
    let _ = writeln!(io::stderr(), "{text}");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Result<Arguments, clap::Error> {
        Arguments::try_parse_from(line.split_whitespace())
    }

    #[test]
    fn the_definition_is_sound() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn lines_are_understood_or_refused() {
        for (line, fine) in [
            ("evenkeel", true),
            ("evenkeel serve --config x --set a.b=c --set d=e --watch --strict", true),
            ("evenkeel serve --set nothing", false),
            ("evenkeel serve --take-over", false),
            ("evenkeel check", true),
            ("evenkeel check x --set a=b", true),
            ("evenkeel explain example.org", true),
            ("evenkeel explain example.org aaaa --socket /x", true),
            ("evenkeel explain example.org TYPE65", true),
            ("evenkeel explain", false),
            ("evenkeel status --check", true),
            ("evenkeel status --json --check", false),
            ("evenkeel top", true),
            ("evenkeel flush example.org", true),
            ("evenkeel flush --zone example.org", true),
            ("evenkeel flush --all", true),
            ("evenkeel flush", false),
            ("evenkeel flush example.org --all", false),
            ("evenkeel freeze", true),
            ("evenkeel freeze --for 30m", true),
            ("evenkeel freeze --for 2d", false),
            ("evenkeel freeze --for 30", false),
            ("evenkeel thaw", true),
            ("evenkeel release db.example.org", true),
            ("evenkeel release", false),
            ("evenkeel stub", false),
            ("evenkeel stub enable --dry-run", true),
            ("evenkeel stub disable --force", true),
            ("evenkeel drill", true),
            ("evenkeel drill all-blackhole --config x --set a=b --json", true),
            ("evenkeel drill --list", true),
            ("evenkeel drill a b", false),
            ("evenkeel import corefile x", true),
            ("evenkeel import dnsmasq -", true),
            ("evenkeel import bind x", false),
            ("evenkeel import unbound", false),
            ("evenkeel completions bash", true),
            ("evenkeel man serve", true),
            ("evenkeel --version --json", true),
            ("evenkeel --json", false),
            ("evenkeel frobnicate", false),
        ] {
            let result = parsed(line);
            assert_eq!(result.is_ok(), fine, "{line}");
            assert!(result.err().is_none_or(|e| e.exit_code() == i32::from(EXIT_USAGE)), "{line}");
        }
    }

    #[test]
    fn a_set_is_split_at_its_first_equals_sign() {
        assert_eq!(parse_set("a.b = x=y"), Ok(("a.b".to_owned(), "x=y".to_owned())));
        assert!(parse_set("a.b").is_err());
    }

    #[test]
    fn every_command_has_a_man_page_and_every_shell_its_completions() {
        let commands: Vec<String> =
            Arguments::command().get_subcommands().map(|command| command.get_name().to_owned()).collect();
        assert!(commands.contains(&"default-config".to_owned()));
        for command in commands {
            let mut page = Arguments::command();
            page.build();
            let page = page.find_subcommand(&command).cloned();
            let mut out = Vec::new();
            clap_mangen::Man::new(page.expect(&command)).render(&mut out).unwrap();
            assert!(String::from_utf8(out).unwrap().contains(".SH SYNOPSIS"), "{command}");
        }
        let mut out = Vec::new();
        clap_complete::generate(Shell::Bash, &mut Arguments::command(), "evenkeel", &mut out);
        assert!(String::from_utf8(out).unwrap().contains("default-config"));
    }

    #[test]
    fn the_version_as_json_is_json() {
        let about: serde_json::Value = serde_json::from_str(&version_text(true)).unwrap();
        assert_eq!(about["version"], env!("CARGO_PKG_VERSION"));
    }
}

//! The page at `/` of the admin listener.
//!
//! One file with its styles and its script in it, the same for every process: what it shows it asks of `status`, again
//! and again, from whence it came and from nowhere else. Its policy says so: nothing is loaded, nothing is framed, no
//! script or style runs but its own two, which a number that is drawn for each reply marks.

use hyper::header::HeaderValue;

const PAGE: &str = include_str!("page.html");

/// Stands in the file where the drawn number goes.
const MARK: &str = "NONCE";

/// The page, and the policy that goes with it.
pub fn page() -> (String, HeaderValue) {
    let nonce = format!("{:032x}", rand::random::<u128>());
    let policy = format!(
        "default-src 'none'; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; connect-src 'self'; \
         img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    );
    // Hexadecimal digits and plain words are always a value of a header.
    let policy = HeaderValue::from_str(&policy).unwrap_or(HeaderValue::from_static("default-src 'none'"));
    (PAGE.replace(MARK, &nonce), policy)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_names_nothing_outside_and_writes_no_markup_from_data() {
        for word in
            ["http://", "https://", "//cdn", "@import", "url(", "innerHTML", "outerHTML", "insertAdjacent", "eval("]
        {
            // The one name of a standard, which nobody asks for.
            let rest = PAGE.replace("http://www.w3.org/2000/svg", "");
            assert!(!rest.contains(word), "{word}");
        }
    }

    #[test]
    fn each_reply_has_its_own_number_and_no_attribute_runs_code() {
        let ((one, policy), (two, _)) = (page(), page());
        assert_ne!(one, two);
        assert!(!one.contains(MARK) && PAGE.matches(MARK).count() == 2);
        let policy = policy.to_str().unwrap();
        let nonce = policy.split("'nonce-").nth(1).and_then(|rest| rest.split('\'').next()).unwrap();
        assert_eq!(one.matches(&format!("nonce=\"{nonce}\"")).count(), 2, "{policy}");
        for attribute in [" onclick=", " onload=", " style="] {
            assert!(!PAGE.contains(attribute), "{attribute} would be refused by the policy");
        }
    }
}

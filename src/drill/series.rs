//! What the program's metrics said over a drill, as the `input_series` of a rule test of promtool.
//!
//! Pure. A scrape is the text that `/metrics` would have given at that time. Every series of it that is the program's
//! own gets the labels that Prometheus would add, and a line with one value a scrape: `_` where it was not there yet,
//! `1+0x3` for a value that stays for three more. The kernel's numbers (`process_*`) are none of a drill.
//!
//! <https://prometheus.io/docs/prometheus/latest/configuration/unit_testing_rules/#series>

use std::collections::BTreeMap;
use std::fmt::Write;

/// Labels of who was scraped.
pub const TARGET: &str = "instance=\"drill\",job=\"evenkeel\"";

/// The lines of a list under `input_series:`, the series in order.
pub fn input(scrapes: &[String]) -> String {
    let mut series: BTreeMap<String, Vec<Option<&str>>> = BTreeMap::new();
    for (n, scrape) in scrapes.iter().enumerate() {
        for line in scrape.lines().filter(|l| l.starts_with("evenkeel_")) {
            let Some((name, value)) = line.rsplit_once(' ') else { continue };
            let values = series.entry(targeted(name)).or_default();
            values.resize(n, None);
            values.push(Some(value));
        }
    }
    let mut text = String::new();
    let up = vec![Some("1"); scrapes.len()];
    let up = (format!("up{{{TARGET}}}"), up);
    for (name, mut values) in std::iter::once(up).chain(series) {
        values.resize(scrapes.len(), None);
        // Writing to a String cannot fail. Of what may stand in a label a quote alone means something here.
        let _ = writeln!(text, "- series: '{}'\n  values: '{}'", name.replace('\'', "''"), in_short(&values));
    }
    text
}

/// A series' name with the target's labels.
fn targeted(name: &str) -> String {
    match name.strip_suffix('}') {
        Some(labelled) => format!("{labelled},{TARGET}}}"),
        None => format!("{name}{{{TARGET}}}"),
    }
}

/// Values as promtool reads them.
fn in_short(values: &[Option<&str>]) -> String {
    let runs = values.chunk_by(|a, b| a == b).map(|run| match (run[0], run.len() - 1) {
        (Some(value), 0) => value.to_owned(),
        (Some(value), more) => format!("{value}+0x{more}"),
        // Of what is missing promtool counts all, of a value those that follow.
        (None, 0) => "_".to_owned(),
        (None, more) => format!("_x{}", more + 1),
    });
    runs.collect::<Vec<String>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_series_has_a_value_a_scrape_and_the_labels_of_its_target() {
        let scrapes = [
            "# HELP evenkeel_a x\nevenkeel_a 1\nprocess_threads 3\n",
            "evenkeel_a 1\nevenkeel_b{group=\"it's\"} 0.5\n",
            "evenkeel_a 2\nevenkeel_b{group=\"it's\"} 0.5\n",
            "evenkeel_a 3\n",
        ];
        let target = "instance=\"drill\",job=\"evenkeel\"";
        assert_eq!(
            input(&scrapes.map(str::to_owned)),
            format!(
                "- series: 'up{{{target}}}'\n  values: '1+0x3'\n\
                 - series: 'evenkeel_a{{{target}}}'\n  values: '1+0x1 2 3'\n\
                 - series: 'evenkeel_b{{group=\"it''s\",{target}}}'\n  values: '_ 0.5+0x1 _'\n"
            )
        );
        assert_eq!(in_short(&[None, None, None, Some("4")]), "_x3 4");
    }
}

//! Tables, and bars beside the figures.

/// Rows of figures under a head, printed with aligned columns.
pub struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    pub fn new(head: &[&str]) -> Self {
        Self { rows: vec![head.iter().map(|&h| h.to_owned()).collect()] }
    }

    pub fn row(&mut self, cells: Vec<String>) {
        self.rows.push(cells);
    }

    pub fn print(&self) {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let width = |c: usize| self.rows.iter().filter_map(|r| Some(r.get(c)?.chars().count())).max().unwrap_or(0);
        let widths: Vec<usize> = (0..columns).map(width).collect();
        for row in &self.rows {
            let cells = row.iter().zip(&widths).enumerate();
            let line: Vec<String> = cells
                .map(|(n, (cell, &width))| if n == 0 { format!("{cell:<width$}") } else { format!("{cell:>width$}") })
                .collect();
            println!("  {}", line.join("  ").trim_end());
        }
    }
}

/// What was judged so far.
#[derive(Default)]
pub struct Bars {
    pub missed: usize,
}

impl Bars {
    pub fn at_most(&mut self, what: &str, is: f64, bar: f64) {
        self.judge(what, is, "at most", bar, is <= bar);
    }

    pub fn at_least(&mut self, what: &str, is: f64, bar: f64) {
        self.judge(what, is, "at least", bar, is >= bar);
    }

    /// What cannot be told is missed too: a NaN holds nothing.
    fn judge(&mut self, what: &str, is: f64, word: &str, bar: f64, held: bool) {
        self.missed += usize::from(!held);
        println!("  {what:<72} {} ({word} {}){}", short(is), short(bar), if held { "" } else { "  MISSED" });
    }
}

/// The middle one; NaN of none.
pub fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    let mut sorted: Vec<f64> = values.into_iter().filter(|v| v.is_finite()).collect();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
}

/// With as many digits as a reader wants.
pub fn short(value: f64) -> String {
    match value {
        v if v.is_nan() => "-".into(),
        v if v.abs() >= 1000.0 => {
            let digits = format!("{v:.0}");
            let groups: Vec<&str> =
                digits.as_bytes().rchunks(3).rev().filter_map(|g| std::str::from_utf8(g).ok()).collect();
            groups.join(",")
        }
        v if v.abs() >= 100.0 => format!("{v:.0}"),
        v => format!("{v:.2}"),
    }
}

//! The figures of one scenario beside their bars, over its runs.
//!
//! A figure is judged by its median: machines have moods. A count of answers that must all be right is judged by its
//! worst run: a lost answer is no mood.

use super::support::client::Sample;

/// The figures, in the order in which they came.
#[derive(Default)]
pub struct Board {
    figures: Vec<Figure>,
}

struct Figure {
    what: String,
    bar: Bar,
    runs: Vec<f64>,
}

#[derive(Clone, Copy)]
enum Bar {
    AtMost(f64),
    AtLeast(f64),
    /// None of so many is wrong.
    NoneOf(usize),
    /// Told for reference.
    Open,
}

impl Board {
    pub fn at_most(&mut self, what: &str, is: f64, bar: f64) {
        self.note(what, is, Bar::AtMost(bar));
    }

    pub fn at_least(&mut self, what: &str, is: f64, bar: f64) {
        self.note(what, is, Bar::AtLeast(bar));
    }

    /// A figure that explains others.
    pub fn told(&mut self, what: &str, is: f64) {
        self.note(what, is, Bar::Open);
    }

    /// Every one of `samples` is right, and there is one.
    pub fn all<'a>(
        &mut self,
        what: &str,
        samples: impl IntoIterator<Item = &'a Sample>,
        right: impl Fn(&Sample) -> bool,
    ) {
        let (mut count, mut wrong) = (0, 0);
        for sample in samples {
            count += 1;
            wrong += usize::from(!right(sample));
        }
        assert!(count > 0, "{what}: nothing was asked");
        self.note(what, wrong as f64, Bar::NoneOf(count));
    }

    fn note(&mut self, what: &str, is: f64, bar: Bar) {
        match self.figures.iter_mut().find(|f| f.what == what) {
            Some(figure) => figure.runs.push(is),
            None => self.figures.push(Figure { what: what.to_owned(), bar, runs: vec![is] }),
        }
    }

    /// Prints all; how many bars were missed.
    pub fn print(&self) -> usize {
        self.figures.iter().for_each(|f| println!("{}", f.line()));
        self.figures.iter().filter(|f| !f.held()).count()
    }
}

impl Figure {
    fn judged(&self) -> f64 {
        let mut sorted = self.runs.clone();
        sorted.sort_by(f64::total_cmp);
        match self.bar {
            Bar::NoneOf(_) => sorted[sorted.len() - 1],
            _ => sorted[sorted.len() / 2],
        }
    }

    fn held(&self) -> bool {
        match self.bar {
            Bar::AtMost(bar) => self.judged() <= bar,
            Bar::AtLeast(bar) => self.judged() >= bar,
            Bar::NoneOf(_) => self.judged() == 0.0,
            Bar::Open => true,
        }
    }

    fn line(&self) -> String {
        let is = self.judged();
        let figure = match self.bar {
            Bar::AtMost(bar) => format!("{is:.2} (at most {bar})"),
            Bar::AtLeast(bar) => format!("{is:.3} (at least {bar})"),
            Bar::NoneOf(count) => format!("{} of {count} right", count - is as usize),
            Bar::Open => format!("{is:.2}"),
        };
        let runs: Vec<String> = self.runs.iter().map(|r| format!("{r:.2}")).collect();
        let runs = if self.runs.len() > 1 { format!("  [{}]", runs.join(" ")) } else { String::new() };
        let missed = if self.held() { "" } else { "  MISSED" };
        format!("  {:<64} {figure}{runs}{missed}", self.what)
    }
}

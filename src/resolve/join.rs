//! Identical questions share one pursuit.
//!
//! Pure. A table from keys to whatever runs a pursuit. Who comes first starts it, who comes while it can still be
//! joined joins it. The question is compared, so that a collision of keys starts a pursuit of its own.

use std::collections::HashMap;

use crate::cache::key::{Key, OwnedQuestion, Question};

/// Pursuits that can be joined.
#[derive(Debug)]
pub struct Joins<P> {
    open: HashMap<Key, (OwnedQuestion, P)>,
}

impl<P> Default for Joins<P> {
    fn default() -> Self {
        Self { open: HashMap::new() }
    }
}

impl<P: Clone> Joins<P> {
    /// The pursuit of a question, where one can be joined.
    pub fn find(&self, key: Key, question: &Question<'_>) -> Option<P> {
        self.open.get(&key).filter(|(q, _)| q.view() == *question).map(|(_, p)| p.clone())
    }

    /// Opens a pursuit to others, in the place of one that is there: who could have joined that one would have.
    pub fn open(&mut self, key: Key, question: &Question<'_>, pursuit: P) {
        self.open.insert(key, (question.to_owned(), pursuit));
    }

    /// Nobody joins the pursuit from here on, where `is_it` says that it is the one.
    pub fn close(&mut self, key: Key, is_it: impl FnOnce(&P) -> bool) {
        if self.open.get(&key).is_some_and(|(_, p)| is_it(p)) {
            self.open.remove(&key);
        }
    }

    /// Pursuits that can be joined.
    pub fn len(&self) -> usize {
        self.open.len()
    }

    /// Is there none?
    pub fn is_empty(&self) -> bool {
        self.open.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_question_joins_and_a_collision_does_not() {
        let mut joins = Joins::default();
        let one = Question { name: b"\x01a\x00", qtype: 1, dnssec_ok: false, cd: false };
        let other = Question { name: b"\x01b\x00", ..one };
        joins.open(Key(7), &one, "first");
        assert_eq!(joins.find(Key(7), &one), Some("first"));
        assert_eq!(joins.find(Key(7), &other), None);
        joins.open(Key(7), &one, "second");
        joins.close(Key(7), |p| *p == "first");
        assert_eq!(joins.find(Key(7), &one), Some("second"), "one that is over closes only itself");
        joins.close(Key(7), |p| *p == "second");
        assert!(joins.is_empty());
    }
}

//! Which mutants are tried, in which order.

use std::collections::{BTreeMap, VecDeque};

use crate::mutate::{Kind, Mutant};
use crate::random::Random;

/// Mutants in the order in which they are to be tried: kinds in turn, and files in turn within a kind.
#[derive(Debug)]
pub struct Queue {
    kinds: BTreeMap<Kind, VecDeque<Mutant>>,
    turn: usize,
}

impl Queue {
    /// Orders all mutants by chance; the same seed gives the same order.
    pub fn new(mutants: Vec<Mutant>, seed: u64) -> Queue {
        let mut random = Random::new(seed);
        let mut by_kind: BTreeMap<Kind, Vec<Mutant>> = BTreeMap::new();
        for mutant in mutants {
            by_kind.entry(mutant.kind).or_default().push(mutant);
        }
        let mut kinds = BTreeMap::new();
        for (kind, mut list) in by_kind {
            list.sort();
            random.shuffle(&mut list);
            kinds.insert(kind, spread(list).into());
        }
        Queue { kinds, turn: 0 }
    }

    /// How many mutants of a kind are left.
    pub fn left(&self, kind: Kind) -> usize {
        self.kinds.get(&kind).map_or(0, VecDeque::len)
    }
}

impl Iterator for Queue {
    type Item = Mutant;

    fn next(&mut self) -> Option<Mutant> {
        for _ in Kind::ALL {
            let kind = Kind::ALL[self.turn % Kind::ALL.len()];
            self.turn += 1;
            if let Some(mutant) = self.kinds.get_mut(&kind).and_then(VecDeque::pop_front) {
                return Some(mutant);
            }
        }
        None
    }
}

/// First one mutant of each file, then a second one, and so on; otherwise in the order given.
fn spread(list: Vec<Mutant>) -> Vec<Mutant> {
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    let mut ranked: Vec<(usize, Mutant)> = list
        .into_iter()
        .map(|mutant| {
            let count = seen.entry(mutant.file.clone()).or_default();
            *count += 1;
            (*count, mutant)
        })
        .collect();
    ranked.sort_by_key(|(rank, _)| *rank);
    ranked.into_iter().map(|(_, mutant)| mutant).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mutate::Holder;

    fn mutant(file: &str, start: usize, kind: Kind) -> Mutant {
        Mutant {
            file: file.into(),
            start,
            end: start + 1,
            kind,
            line: 1,
            holder: Holder::Function("f".into()),
            before: "+".into(),
            after: "-".into(),
        }
    }

    #[test]
    fn kinds_and_files_take_turns_and_the_seed_decides_the_rest() {
        let all: Vec<Mutant> = (0..20)
            .flat_map(|n| {
                [mutant("a.c", n, Kind::Logic), mutant("b.c", n, Kind::Logic), mutant("a.c", n, Kind::Table)]
            })
            .collect();
        let order: Vec<Mutant> = Queue::new(all.clone(), 7).collect();
        assert_eq!(order.len(), all.len());
        assert_eq!(order, Queue::new(all.clone(), 7).collect::<Vec<_>>());
        assert_ne!(order, Queue::new(all, 8).collect::<Vec<_>>());
        let first: Vec<(Kind, &str)> = order[..4].iter().map(|m| (m.kind, m.file.as_str())).collect();
        assert_eq!(
            (first[0].0, first[1].0, first[2].0, first[3].0),
            (Kind::Logic, Kind::Table, Kind::Logic, Kind::Table)
        );
        assert_ne!(first[0].1, first[2].1);
    }
}

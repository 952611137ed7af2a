//! Several programs at once.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;

use xsplice_report::Diagnostic;

/// Calls `work` for every item, up to `jobs` at once, and gives the results in the order of the items.
///
/// After a failure no new one begins; the failure of the first item in order that has one is given.
pub(crate) fn in_parallel<T: Sync, R: Send>(
    jobs: usize,
    items: &[T],
    work: impl Fn(&T) -> Result<R, Diagnostic> + Sync,
) -> Result<Vec<R>, Diagnostic> {
    let next = AtomicUsize::new(0);
    let results: Vec<Mutex<Option<Result<R, Diagnostic>>>> = items.iter().map(|_| Mutex::new(None)).collect();
    let failed = AtomicUsize::new(0);
    let worker = || {
        loop {
            let at = next.fetch_add(1, Ordering::Relaxed);
            let Some(item) = items.get(at).filter(|_| failed.load(Ordering::Relaxed) == 0) else { break };
            let result = work(item);
            if result.is_err() {
                failed.store(1, Ordering::Relaxed);
            }
            *results[at].lock().unwrap_or_else(PoisonError::into_inner) = Some(result);
        }
    };
    thread::scope(|scope| {
        for _ in 0..jobs.clamp(1, items.len().max(1)) {
            scope.spawn(worker);
        }
    });
    results
        .into_iter()
        .filter_map(|result| result.into_inner().unwrap_or_else(PoisonError::into_inner))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codes;

    #[test]
    fn results_come_in_order_and_a_failure_is_the_result() {
        let items: Vec<usize> = (0..100).collect();
        assert_eq!(
            in_parallel(4, &items, |&n| Ok(n * 2)).unwrap(),
            (0..100).map(|n| n * 2).collect::<Vec<_>>()
        );
        assert_eq!(in_parallel(4, &[] as &[usize], |&n| Ok(n)).unwrap(), Vec::<usize>::new());
        let failing = in_parallel(4, &items, |&n| match n {
            7 => Err(Diagnostic::new(codes::IO, "seven")),
            n => Ok(n),
        });
        assert_eq!(failing.unwrap_err().what, "seven");
    }
}

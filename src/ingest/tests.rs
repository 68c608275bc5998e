use std::collections::BTreeSet;
use std::fs;
use std::sync::atomic::{AtomicUsize, Ordering};

use proptest::prelude::*;

use super::capture::{Everything, Judge, Wanted};
use super::queue::Queue;
use super::scan::{Scan, Scanned};
use super::walk::{Walk, WalkRules};
use crate::error::{Error, ErrorKind, Result, Subject};
use crate::host::source::{SourceTree, Xattr};
use crate::path::TreePath;
use crate::tree::Inode;

fn path(text: &str) -> TreePath {
    TreePath::parse(text.as_bytes()).unwrap()
}

/// Jobs are paths, each with its children: all is given in the order of paths, whatever the threads do.
fn walk(paths: &BTreeSet<TreePath>, threads: usize) -> Vec<TreePath> {
    let queue = Queue::new(TreePath::root(), TreePath::root());
    std::thread::scope(|scope| {
        let results = queue.results();
        for _ in 0..threads {
            scope.spawn(|| {
                queue.work(|job, steps| {
                    steps.push(job.clone());
                    let children = paths.iter().filter(|path| path.parent().as_ref() == Some(&job));
                    let later: Vec<_> =
                        children.map(|child| steps.start(child.clone(), child.clone())).collect();
                    for later in later {
                        steps.push_later(later);
                    }
                    Ok(())
                });
            });
        }
        results.collect::<Result<_>>().unwrap()
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, ..ProptestConfig::default() })]

    #[test]
    fn results_come_in_the_order_of_paths(
        names in prop::collection::btree_set("[ab!\u{1}-]{1,2}(/[ab.-]{3}){0,2}", 0..40),
        threads in 1..4_usize,
    ) {
        let mut paths = BTreeSet::from([TreePath::root()]);
        for name in names {
            let mut next = Some(path(&name));
            while let Some(path) = next {
                next = path.parent();
                paths.insert(path);
            }
        }
        prop_assert_eq!(walk(&paths, threads), paths.into_iter().collect::<Vec<_>>());
    }

    #[test]
    fn a_scan_finds_everything_in_the_order_of_trees(
        names in prop::collection::btree_set("[ab!\u{1}-]{1,2}(/[ab.-]{3}){0,2}", 0..20),
        threads in 1..4_usize,
    ) {
        let folder = tempfile::tempdir().unwrap();
        let mut expected = BTreeSet::from([TreePath::root()]);
        for name in names {
            fs::create_dir_all(folder.path().join(&name)).unwrap();
            let mut next = Some(path(&name));
            while let Some(path) = next {
                next = path.parent();
                expected.insert(path);
            }
        }
        prop_assert_eq!(scan(&SourceTree::open(folder.path()).unwrap(), None, threads).unwrap(), expected.into_iter().collect::<Vec<_>>());
    }
}

/// Wants nothing, so that nothing is written.
struct Nothing;

impl Wanted for Nothing {
    fn judge(&self) -> Judge<'_> {
        Box::new(|_| false)
    }

    fn correct(&self, path: &TreePath, _: &mut Inode, _: &mut Vec<Xattr>) -> Result<()> {
        panic!("{path} was read")
    }
}

fn scan(source: &SourceTree, own: Option<(u64, u64)>, threads: usize) -> Result<Vec<TreePath>> {
    let store = crate::Store::in_memory()?;
    let session = store.scratch_session()?;
    let walk = Walk::new(source, WalkRules::default(), own, threads);
    Scan { walk: &walk, wanted: &Nothing }.run(&session, |scanned| {
        scanned
            .map(|scanned| {
                Ok(match scanned? {
                    Scanned::Captured(path, _) => path,
                    Scanned::Left(found) | Scanned::Linked { found, .. } => found.path,
                })
            })
            .collect()
    })
}

#[test]
fn a_large_directory_is_shared_out() {
    let folder = tempfile::tempdir().unwrap();
    let mut expected = vec![TreePath::root()];
    for number in 0..1_000 {
        let name = format!("{number:04}");
        if number % 9 == 0 {
            fs::create_dir(folder.path().join(&name)).unwrap();
        } else {
            fs::write(folder.path().join(&name), &name).unwrap();
        }
        expected.push(path(&name));
    }
    assert_eq!(scan(&SourceTree::open(folder.path()).unwrap(), None, 2).unwrap(), expected);
}

#[test]
fn the_stores_own_directory_is_left_out_and_refused_as_the_root() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir_all(folder.path().join("a/store/packs")).unwrap();
    let store = SourceTree::open(&folder.path().join("a/store")).unwrap();
    let own = store.root_stat().map(|stat| (stat.device, stat.inode)).unwrap();
    let source = SourceTree::open(folder.path()).unwrap();
    assert_eq!(scan(&source, Some(own), 2).unwrap(), [TreePath::root(), path("a")]);
    let error = scan(&store, Some(own), 2).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(error.to_string().contains("a/store"), "{error}");
}

#[test]
fn an_error_ends_the_work_and_reaches_the_consumer() {
    let queue: Queue<u32, u32> = Queue::new(TreePath::root(), 0);
    let fail = || Error::new(ErrorKind::Conflict, Subject::Catalog, "on purpose");
    std::thread::scope(|scope| {
        let results = queue.results();
        for _ in 0..2 {
            scope.spawn(|| {
                queue.work(|job, steps| {
                    if job == 50 {
                        return Err(fail());
                    }
                    steps.push(job);
                    let later = steps.start(path(&format!("{job}")), job + 1);
                    steps.push_later(later);
                    Ok(())
                });
            });
        }
        let results: Vec<_> = results.collect();
        assert_eq!(results.last().unwrap().as_ref().unwrap_err().kind(), ErrorKind::Conflict);
        assert!(results[..results.len() - 1].iter().all(Result::is_ok));
    });
}

#[test]
fn a_worker_that_dies_is_an_error() {
    let queue: Queue<(), ()> = Queue::new(TreePath::root(), ());
    std::thread::scope(|scope| {
        let mut results = queue.results();
        let worker = scope.spawn(|| queue.work(|(), _| panic!("on purpose")));
        assert_eq!(results.next().unwrap().unwrap_err().kind(), ErrorKind::Io);
        assert!(results.next().is_none());
        assert!(worker.join().is_err());
    });
}

#[test]
fn results_wait_for_the_consumer_in_bounded_number() {
    // The first job ends only when the others have run ahead as far as they may.
    const STEPS: usize = 1_000;
    const AT_LEAST: usize = super::queue::WAITING_STEPS_MAX / STEPS;
    let (ahead, run_ahead) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let queue: Queue<u32, u32> = Queue::new(TreePath::root(), 0);
    std::thread::scope(|scope| {
        let results = queue.results();
        for _ in 0..3 {
            scope.spawn(|| {
                queue.work(|job, steps| {
                    match job {
                        0 => {
                            let later: Vec<_> =
                                (1..=200).map(|job| steps.start(path(&format!("{job:03}")), job)).collect();
                            for later in later {
                                steps.push_later(later);
                            }
                        }
                        1 => {
                            while ahead.load(Ordering::SeqCst) < AT_LEAST {
                                std::thread::yield_now();
                            }
                            // Were there no bound, all the others would be done by now.
                            std::thread::sleep(std::time::Duration::from_millis(50));
                            run_ahead.store(ahead.load(Ordering::SeqCst), Ordering::SeqCst);
                        }
                        _ => {
                            ahead.fetch_add(1, Ordering::SeqCst);
                            (0..STEPS).for_each(|_| steps.push(job));
                        }
                    }
                    Ok(())
                });
            });
        }
        let mut results = results;
        let first = results.next().unwrap().unwrap();
        assert_eq!(first, 2);
        let run_ahead = run_ahead.load(Ordering::SeqCst);
        assert!((AT_LEAST..AT_LEAST + 4).contains(&run_ahead), "{run_ahead} jobs ran ahead");
        assert_eq!(results.map(Result::unwrap).count(), 199 * STEPS - 1);
    });
}

#[test]
fn everything_is_wanted_of_an_import() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("a"), "text").unwrap();
    fs::hard_link(folder.path().join("a"), folder.path().join("b")).unwrap();
    let store = crate::Store::in_memory().unwrap();
    let session = store.scratch_session().unwrap();
    let source = SourceTree::open(folder.path()).unwrap();
    let walk = Walk::new(&source, WalkRules::default(), None, 2);
    let scan = Scan { walk: &walk, wanted: &Everything };
    let scanned = scan.run(&session, |scanned| scanned.collect::<Result<Vec<_>>>()).unwrap();
    assert!(matches!(&scanned[0], Scanned::Captured(path, _) if path.is_root()));
    assert!(scanned[1..].iter().all(|scanned| matches!(scanned, Scanned::Linked { is_wanted: true, .. })));
    assert_eq!(scanned.len(), 3);
}

use proptest::prelude::*;

use super::*;

type Rows = BTreeMap<TreePath, StateRow>;

fn any_time() -> impl Strategy<Value = Timestamp> {
    (any::<i64>(), 0..1_000_000_000_u32).prop_map(|(seconds, nanos)| Timestamp { seconds, nanos })
}

fn any_row() -> impl Strategy<Value = StateRow> {
    let unset = (
        any::<Option<(u32, u32)>>(),
        prop::option::of(0..0o10000_u16),
        prop::collection::vec(prop::collection::vec(any::<u8>(), 0..20), 0..3),
        any::<bool>(),
        any::<bool>(),
    );
    let unset =
        unset.prop_map(|(owner, mode, xattrs, time, omitted)| Unset { owner, mode, time, xattrs, omitted });
    let unset = unset.prop_map(|unset| (!unset.is_empty()).then(|| Box::new(unset)));
    let kind = prop::sample::select(KINDS.map(|(_, kind)| kind).to_vec());
    (kind, 0..3_u64, any::<u64>(), any::<u64>(), any_time(), any_time(), unset).prop_map(
        |(kind, device, inode, size, mtime, ctime, unset)| StateRow {
            kind,
            device,
            inode,
            size,
            mtime,
            ctime,
            unset,
        },
    )
}

fn any_path() -> impl Strategy<Value = TreePath> {
    prop::collection::vec("[ab\u{1}-]{1,3}", 0..4)
        .prop_map(|names| TreePath::parse(names.join("/").as_bytes()).unwrap())
}

fn any_rows() -> impl Strategy<Value = Rows> {
    prop::collection::btree_map(any_path(), any_row(), 0..20)
}

fn encode(rows: &Rows, gone: &[TreePath]) -> Vec<u8> {
    encode_segment(Timestamp::default(), rows.iter(), gone)
}

fn loaded(bytes: &[u8]) -> Rows {
    State::load(bytes).unwrap().iter().map(|(path, row)| (path.clone(), row.clone())).collect()
}

fn path(text: &str) -> TreePath {
    TreePath::parse(text.as_bytes()).unwrap()
}

/// What the file system would say of an unchanged file with this row.
fn stat_of(row: &StateRow) -> Stat {
    let StateRow { kind, device, inode, size, mtime, ctime, .. } = *row;
    let zero = Timestamp::default();
    Stat {
        kind,
        inode,
        size,
        mtime,
        ctime,
        born: zero,
        device,
        links: 1,
        mode: 0,
        uid: 0,
        gid: 0,
        major: 0,
        minor: 0,
        allocated_bytes: 0,
        is_mount_point: false,
        attributes: rustix::fs::StatxAttributes::empty(),
    }
}

fn trusts(state: &State, path: &TreePath, stat: &Stat) -> bool {
    state.judge()(path, stat)
}

fn settled_row() -> StateRow {
    let time = Timestamp { seconds: 100, nanos: 5 };
    StateRow { kind: FileKind::File, device: 1, inode: 7, size: 3, mtime: time, ctime: time, unset: None }
}

proptest! {
    #[test]
    fn segments_add_up_in_order(
        steps in prop::collection::vec((any_rows(), prop::collection::btree_set(any_path(), 0..5)), 0..4),
    ) {
        let (mut bytes, mut expected) = (Vec::new(), Rows::new());
        for (rows, gone) in steps {
            let gone: Vec<_> = gone.into_iter().collect();
            bytes.extend(encode(&rows, &gone));
            expected.extend(rows);
            expected.retain(|path, _| !gone.contains(path));
        }
        prop_assert_eq!(loaded(&bytes), expected);
    }

    #[test]
    fn a_state_written_anew_says_and_trusts_the_same(
        before in any_rows(),
        rows in any_rows(),
        gone in prop::collection::btree_set(any_path(), 0..5),
        observed in prop::array::uniform2(0..200_000_000_000_i64),
    ) {
        let gone: Vec<_> = gone.into_iter().collect();
        let [first, second] = observed.map(|ns| Timestamp {
            seconds: ns / 1_000_000_000,
            nanos: u32::try_from(ns % 1_000_000_000).unwrap(),
        });
        // Time goes on; where a clock is set back, fewer rows are trusted.
        let (first, second) = (first.min(second), first.max(second));
        let mut appended = encode_segment(first, before.iter(), &[]);
        let state = State::load(&appended).unwrap();
        appended.extend(encode_segment(second, rows.iter(), &gone));
        let appended = State::load(&appended).unwrap();
        let anew = State::load(&state.rewritten(second, &rows, &gone)).unwrap();
        prop_assert_eq!(&anew.rows, &appended.rows);
        let again = State::load(&anew.rewritten(second, &Rows::new(), &[])).unwrap();
        prop_assert_eq!(&again.rows, &anew.rows);
    }

    /// Whatever was asked before, in whatever order.
    #[test]
    fn a_judge_finds_each_row(rows in any_rows(), asked in prop::collection::vec(any_path(), 0..30)) {
        let state = State::load(&encode_segment(Timestamp { seconds: i64::MAX, nanos: 0 }, rows.iter(), &[])).unwrap();
        let mut judge = state.judge();
        for path in rows.keys().chain(&asked).chain(rows.keys()) {
            let row = rows.get(path);
            let is_settled = row.is_some_and(|row| is_settled(row.ctime, Timestamp { seconds: i64::MAX, nanos: 0 }));
            prop_assert_eq!(judge(path, &stat_of(row.unwrap_or(&settled_row()))), is_settled);
            prop_assert_eq!(state.get(path), row);
        }
    }

    #[test]
    fn any_flipped_bit_and_any_cut_are_found(rows in any_rows(), position in any::<usize>(), bit in 0..8_u8) {
        let sound = encode(&rows, &[path("gone")]);
        let position = position % sound.len();
        let mut bytes = sound.clone();
        bytes[position] ^= 1 << bit;
        prop_assert!(State::load(&bytes).is_err());
        // Nothing at all is a state: one of no rows.
        prop_assert!(position == 0 || State::load(&sound[..position]).is_err());
    }

    #[test]
    fn rubbish_is_refused_even_with_a_true_check(body in prop::collection::vec(any::<u8>(), 0..60)) {
        let mut bytes = b"LSST\x03".to_vec();
        bytes.extend((body.len() as u64).to_le_bytes());
        bytes.extend(&blake3::hash(&body).as_bytes()[..16]);
        bytes.extend(&body);
        // Few bodies mean anything; none may do harm, and what is read is what would be written again.
        if let Ok(state) = State::load(&bytes) {
            let rows: Rows = state.iter().map(|(path, row)| (path.clone(), row.clone())).collect();
            prop_assert_eq!(loaded(&encode(&rows, &[])), rows);
        }
    }

    #[test]
    fn only_what_is_clearly_older_than_the_look_is_trusted(delay_ns in -50_000_000_i64..50_000_000) {
        let row = settled_row();
        let observed_ns = 100_000_000_005 + delay_ns;
        let observed = Timestamp {
            seconds: observed_ns / 1_000_000_000,
            nanos: u32::try_from(observed_ns % 1_000_000_000).unwrap(),
        };
        let bytes = encode_segment(observed, Rows::from([(path("f"), row.clone())]).iter(), &[]);
        let state = State::load(&bytes).unwrap();
        prop_assert_eq!(trusts(&state, &path("f"), &stat_of(&row)), i128::from(delay_ns) > SETTLE_NS);
    }
}

#[test]
fn a_file_that_differs_in_anything_is_not_trusted() {
    let row = settled_row();
    let observed = Timestamp { seconds: 200, nanos: 0 };
    let bytes = encode_segment(observed, Rows::from([(path("f"), row.clone())]).iter(), &[]);
    let state = State::load(&bytes).unwrap();
    let stat = stat_of(&row);
    assert!(trusts(&state, &path("f"), &stat));
    assert!(!trusts(&state, &path("g"), &stat), "a path without a row");
    let later = Timestamp { seconds: 100, nanos: 6 };
    for other in [
        Stat { kind: FileKind::Fifo, ..stat.clone() },
        Stat { device: 2, ..stat.clone() },
        Stat { inode: 8, ..stat.clone() },
        Stat { size: 4, ..stat.clone() },
        Stat { mtime: later, ..stat.clone() },
        Stat { ctime: later, ..stat.clone() },
    ] {
        assert!(!trusts(&state, &path("f"), &other), "{other:?}");
    }
}

#[test]
fn times_in_whole_seconds_are_taken_for_coarse() {
    let coarse = Timestamp { seconds: 100, nanos: 0 };
    assert!(!is_settled(coarse, Timestamp { seconds: 102, nanos: 0 }));
    assert!(is_settled(coarse, Timestamp { seconds: 102, nanos: 1 }));
}

#[test]
fn a_later_segment_takes_trust_away_and_gives_it_back() {
    let row = settled_row();
    let rows = Rows::from([(path("f"), row.clone())]);
    let mut bytes = encode_segment(Timestamp { seconds: 200, nanos: 0 }, rows.iter(), &[]);
    bytes.extend(encode_segment(row.ctime, rows.iter(), &[]));
    assert!(!trusts(&State::load(&bytes).unwrap(), &path("f"), &stat_of(&row)));
    bytes.extend(encode_segment(Timestamp { seconds: 300, nanos: 0 }, rows.iter(), &[]));
    assert!(trusts(&State::load(&bytes).unwrap(), &path("f"), &stat_of(&row)));
}

#[test]
fn golden_bytes() {
    let row =
        StateRow { unset: Some(Box::new(Unset { mode: Some(0o644), ..Unset::default() })), ..settled_row() };
    let ctime = Timestamp { seconds: 99, nanos: 9 };
    let next = StateRow { inode: 6, size: 300, ctime, ..settled_row() };
    let unset = Some(Box::new(Unset { time: true, ..Unset::default() }));
    let bytes = encode_segment(
        Timestamp { seconds: 1, nanos: 2 },
        Rows::from([(path("f"), StateRow { unset, ..settled_row() })]).iter(),
        &[],
    );
    let hex: Vec<_> = bytes.iter().skip(29).map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(hex.concat(), "0202010001667001010e03c8010a00");
    let bytes = encode_segment(
        Timestamp { seconds: 1, nanos: 2 },
        Rows::from([(path("f"), row), (path("fa"), next)]).iter(),
        &[path("g")],
    );
    let hex: Vec<_> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(
        hex.concat(),
        "4c535354032000000000000000cc704169ac548f40edd872c0c30be661\
         0202020001663201010e03c8010aa403010161000101ac020000010801000167"
    );
}

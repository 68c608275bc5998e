//! Files that are damaged while nobody has them open: no wrong byte is read, and what can't be read is an error.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use layerstone::testing::{Chance, Damage, DiskImage, Media, Pick, SimulatedDisk, SimulatedMachine};
use layerstone::{ErrorKind, Store};

use super::operations::check::options;
use super::operations::effect::read_all;
use super::operations::model::Model;
use super::run::{Plan, Run};
use crate::given::parse;

pub(super) fn any_damage(chance: &mut Chance, bytes: u64, older: &DiskImage) -> Damage {
    let sectors = bytes / 512;
    match chance.below(6) {
        0 | 1 => Damage::FlipBit(chance.below(bytes * 8)),
        2 => Damage::ZeroSector(chance.below(sectors)),
        3 => Damage::Misdirect { sector: chance.below(sectors), to: chance.below(sectors) },
        4 => Damage::Truncate(chance.below(bytes)),
        _ if chance.flip() => Damage::Remove,
        _ => Damage::Replace(older.clone()),
    }
}

/// Reads everything; gives how often something was damaged.
fn read(image: &DiskImage, model: &Model) -> Result<u64, layerstone::Error> {
    let machine = Arc::new(SimulatedMachine::new(1, 0));
    let store = Store::open_simulated(&SimulatedDisk::new(image), &machine, options().exclusive(true))?;
    let mut damaged = store.verify()?.fault_count;
    for (scope, images) in model.view() {
        let project = store.project(&parse(&scope))?;
        for (image, _) in images {
            match project.find(&image.into()).and_then(|found| read_all(&found)) {
                Ok(content) => assert!(content == *model.contents[&image], "wrong bytes of image {image}"),
                Err(error) if error.kind() == ErrorKind::Corrupt => damaged += 1,
                Err(error) => return Err(error),
            }
        }
    }
    Ok(damaged)
}

#[test]
fn no_wrong_byte_is_read_of_damaged_files() {
    let disk = SimulatedDisk::default();
    let plan = Plan::new(2);
    let models = Run::new(plan, &disk).finish().unwrap();
    let (whole, log) = (disk.image(), disk.log());
    let older = Media::default().after(&log[..log.len() / 2]).crash(Pick::Everything).0;
    let model = models.last().unwrap();
    assert_eq!(read(&whole, model).unwrap(), 0);
    // The catalog's pages are redb's: `damage` in this suite damages those.
    let names: Vec<_> = whole.files().filter(|name| *name != "catalog.redb").map(str::to_owned).collect();
    let (mut chance, mut refused, mut told) = (Chance::new(1), 0, 0);
    for _ in 0..1_500 {
        let mut image = whole.clone();
        let name = chance.pick(&names).unwrap();
        let damage = any_damage(&mut chance, whole.len(name), &older);
        if !image.damage(name, &damage) {
            continue;
        }
        let found = catch_unwind(AssertUnwindSafe(|| read(&image, model)));
        let found = found.unwrap_or_else(|_| panic!("{name}, {damage:?}: it panicked, or gave wrong bytes"));
        match found {
            Ok(0) => {}
            Ok(_) => told += 1,
            Err(error) => {
                assert!(
                    matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::Unsupported | ErrorKind::Io),
                    "{error}"
                );
                refused += 1;
            }
        }
    }
    println!("{told} stores were readable in part, {refused} not at all");
    assert!(told > 300);
}

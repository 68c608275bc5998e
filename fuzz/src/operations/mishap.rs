//! What befalls a store, and what a repair makes of it: every image that lived is there or is named as lost, and none that was
//! removed comes back unasked, as far as the catalog or a new dump tells.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use layerstone::id::ImageId;
use layerstone::testing::{Chance, Damage, DiskImage, SimulatedDisk, SimulatedMachine};
use layerstone::{
    CatalogState, ImageKind, ImageRef, ListOptions, RepairOptions, RepairReport, Scope as FoundIn, Store,
};

use super::check::{Verdict, check_sound, options, told};
use super::effect::{name, read_all};
use super::model::{Content, Model, PUBLIC, Scope};

/// What befalls a store.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Mishap {
    Packs,
    Index,
    /// The dump is as old as it happens to be.
    Catalog,
    CatalogBesideNewDump,
    CatalogAndDump,
    CatalogBesideNewDumpAndPacks,
    /// Nothing: removed images are wanted back.
    Removal,
}

pub const MISHAPS: [Mishap; 7] = [
    Mishap::Packs,
    Mishap::Index,
    Mishap::Catalog,
    Mishap::CatalogBesideNewDump,
    Mishap::CatalogAndDump,
    Mishap::CatalogBesideNewDumpAndPacks,
    Mishap::Removal,
];

impl Mishap {
    /// Whether the repaired store can have nothing that was removed.
    fn keeps_removals(self) -> bool {
        !matches!(self, Self::Catalog | Self::CatalogAndDump | Self::Removal)
    }

    fn damage(self, image: &mut DiskImage, chance: &mut Chance) {
        use Mishap::{Catalog, CatalogAndDump, CatalogBesideNewDump, CatalogBesideNewDumpAndPacks};
        if matches!(self, Self::Packs | CatalogBesideNewDumpAndPacks) {
            for _ in 0..=chance.below(2) {
                damage_one(image, "packs/", chance, |chance, bytes| Damage::FlipBit(chance.below(bytes * 8)));
            }
        }
        if matches!(self, Catalog | CatalogAndDump | CatalogBesideNewDump | CatalogBesideNewDumpAndPacks) {
            damage_one(image, "catalog.redb", chance, |chance, _| match chance.below(3) {
                0 => Damage::Remove,
                1 => Damage::Truncate(100),
                _ => Damage::ZeroSector(0),
            });
        }
        if self == CatalogAndDump {
            damage_one(image, "catalog.dump", chance, |chance, bytes| {
                if chance.flip() { Damage::Remove } else { Damage::FlipBit(chance.below(bytes * 8)) }
            });
        }
        if self == Self::Index {
            damage_one(image, "segments/", chance, |_, _| Damage::Remove);
        }
    }
}

fn damage_one(
    image: &mut DiskImage,
    kind: &str,
    chance: &mut Chance,
    damage: impl FnOnce(&mut Chance, u64) -> Damage,
) {
    let names: Vec<_> = image.files().filter(|name| name.starts_with(kind)).map(str::to_owned).collect();
    let Some(name) = chance.pick(&names) else { return };
    let damage = damage(chance, image.len(name));
    image.damage(name, &damage);
}

/// What a store holds, as a model of which more steps can be taken; reads all of it.
fn learn(store: &Store, known: &BTreeMap<ImageId, Content>) -> Verdict<Model> {
    let mut model = Model { contents: known.clone(), ..Model::default() };
    let names = told("projects", store.projects())?.into_iter().map(|project| project.name.to_string());
    for scope_name in names.chain([PUBLIC.to_owned()]) {
        let project = told("a project", name(&scope_name).and_then(|name| store.project(&name)))?;
        let all = ListOptions { limit: None, ..ListOptions::default() };
        let page = told("a list", project.images(&all))?;
        let mut scope = Scope::default();
        for info in page.images.into_iter().rev() {
            let image = told("an image", project.find(&info.id.into()))?;
            let content = Arc::new(told("an image's content", read_all(&image))?);
            let known = model.contents.entry(info.id).or_insert_with(|| Arc::clone(&content));
            if *known != content {
                return Err(format!("image {} has other content", info.id));
            }
            if scope_name == PUBLIC || info.scope == FoundIn::Project {
                scope.owned.insert(info.id);
                if info.kind == ImageKind::Imported {
                    scope.imported.insert(content, info.id);
                }
            }
            for tag in info.tags {
                let found = told("a tag", project.resolve(&ImageRef::Tag(tag.clone())))?;
                if scope_name == PUBLIC || found.scope == FoundIn::Project {
                    scope.tags.insert(tag.to_string(), info.id);
                }
            }
        }
        model.scopes.insert(scope_name, scope);
    }
    Ok(model)
}

fn images(model: &Model) -> BTreeSet<ImageId> {
    model.scopes.values().flat_map(Scope::images).collect()
}

fn owned(model: &Model) -> BTreeSet<ImageId> {
    model.scopes.values().flat_map(|scope| scope.owned.iter().copied()).collect()
}

/// Compares what a repair came to with what was there.
fn check(mishap: Mishap, before: &Model, after: &Model, report: &RepairReport) -> Verdict<()> {
    let lost: BTreeSet<_> = report.damaged_images.iter().map(|lost| lost.image).collect();
    let there = images(after);
    if let Some(gone) = images(before).iter().find(|image| !there.contains(image) && !lost.contains(image)) {
        return Err(format!("image {gone} is gone without a word"));
    }
    if let Some(told) = report.removed.iter().find(|removed| owned(before).contains(&removed.image)) {
        return Err(format!("image {} is told as removed", told.image));
    }
    if let Some(lost) = lost.iter().find(|image| there.contains(image)) {
        return Err(format!("image {lost} is told as lost, and is there"));
    }
    if !lost.is_empty() && !report.has_losses() {
        return Err("something is lost, and that is no loss".to_owned());
    }
    if !mishap.keeps_removals() {
        return Ok(());
    }
    let salvaged: BTreeSet<_> = report.salvaged.iter().map(|left| left.image).collect();
    let lived = images(before);
    let mut back = there.difference(&lived).filter(|image| !salvaged.contains(image));
    if let Some(back) = back.next() {
        return Err(format!("image {back} is back, and nobody asked for it"));
    }
    for (name, scope) in &before.scopes {
        let mut expected = scope.tags.clone();
        expected.retain(|_, image| !lost.contains(image));
        if after.scopes[name].tags != expected {
            return Err(format!("the tags of '{name}' are {:?}, not {expected:?}", after.scopes[name].tags));
        }
    }
    Ok(())
}

/// What came of a repair.
pub struct Repaired {
    pub disk: SimulatedDisk,
    pub model: Model,
    /// Whether the catalog was whole.
    pub was_whole: bool,
}

/// Damages a store that nobody has open, repairs it, and compares what it has then with what it had.
pub fn befall(
    mishap: Mishap,
    disk: &SimulatedDisk,
    machine: &Arc<SimulatedMachine>,
    before: &Model,
    chance: &mut Chance,
) -> Verdict<Repaired> {
    let open = |disk: &SimulatedDisk| Store::open_simulated(disk, machine, options().exclusive(true));
    if matches!(mishap, Mishap::CatalogBesideNewDump | Mishap::CatalogBesideNewDumpAndPacks) {
        told("no dump", open(disk).and_then(|store| store.dump_catalog()))?;
    }
    let mut image = disk.image();
    mishap.damage(&mut image, chance);
    let disk = SimulatedDisk::new(&image);
    let include_removed = mishap == Mishap::Removal;
    let report = options().repair_simulated(&disk, machine, RepairOptions { include_removed });
    let report = told("it can't be repaired", report)?;
    let at = |fault| format!("{fault}: {report:?}");
    let store = told("it does not open", open(&disk)).map_err(at)?;
    check_sound(&store, "after a repair").map_err(at)?;
    let model = learn(&store, &before.contents).map_err(at)?;
    drop(store);
    check(mishap, before, &model, &report).map_err(at)?;
    Ok(Repaired { disk, model, was_whole: report.catalog == CatalogState::Whole })
}

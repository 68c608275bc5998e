//! What a store holds, compared with what the model says.

use std::sync::LazyLock;
use std::time::Duration;

use layerstone::id::ImageId;
use layerstone::testing::SimulatedDisk;
use layerstone::{ListOptions, Store, StoreOptions};

use super::effect::{collect, name, read_all};
use super::model::{Model, PUBLIC, View};

/// What is wrong, in words.
pub type Verdict<T> = Result<T, String>;

pub fn told<T>(what: &str, result: layerstone::Result<T>) -> Verdict<T> {
    result.map_err(|error| format!("{what}: {error} ({:?})", error.kind()))
}

/// Small sizes, so that a few steps fill packs, make segments and merge them.
pub fn options() -> StoreOptions {
    // Asking the machine how many threads it has takes as long as a good part of what is tested.
    static DEFAULT: LazyLock<StoreOptions> = LazyLock::new(StoreOptions::default);
    StoreOptions::clone(&DEFAULT)
        .threads(1)
        .level(1)
        .pack_bytes(25_000)
        .row_objects(8)
        .cache_bytes(1 << 20)
        .lock_timeout(Duration::ZERO)
        .upkeep_when_waited_for()
}

/// Everything that a user sees by listing.
pub fn observe(store: &Store) -> layerstone::Result<View> {
    let names = store.projects()?.into_iter().map(|project| project.name.to_string());
    let names = names.chain([PUBLIC.to_owned()]);
    let all = ListOptions { limit: None, ..ListOptions::default() };
    let list = |scope: String| {
        let page = store.project(&name(&scope)?)?.images(&all)?;
        let images = page
            .images
            .into_iter()
            .map(|image| (image.id, image.tags.iter().map(ToString::to_string).collect()));
        Ok((scope, images.collect()))
    };
    names.map(list).collect()
}

pub fn check_sound(store: &Store, when: &str) -> Verdict<layerstone::VerifyReport> {
    let report = told(&format!("it can't be verified {when}"), store.verify())?;
    if report.is_sound() { Ok(report) } else { Err(format!("it is damaged {when}: {report:?}")) }
}

pub fn check_content(store: &Store, model: &Model, scope: &str, image: ImageId) -> Verdict<()> {
    let found = told("a project", name(scope).and_then(|scope| store.project(&scope)))?;
    let found = told("an image that is listed", found.find(&image.into()))?;
    let content = told("an image's content", read_all(&found))?;
    if content == *model.contents[&image] { Ok(()) } else { Err(format!("image {image} has other content")) }
}

/// One collection leaves nothing that is not needed, and all that is.
pub fn check_collection(disk: &SimulatedDisk, store: &Store, model: &Model) -> Verdict<()> {
    let collected = told("nothing can be collected", collect(store, true))?;
    if collected.waiting_packs > 0 {
        return Err(format!("packs wait, and nobody reads: {collected:?}"));
    }
    store.wait_for_upkeep();
    let report = check_sound(store, "after a collection")?;
    let view = model.view();
    if told("it can't be listed after a collection", observe(store))? != view {
        return Err("a collection changed what is seen".to_owned());
    }
    for (scope, images) in &view {
        images.iter().try_for_each(|(image, _)| check_content(store, model, scope, *image))?;
    }
    let image = disk.image();
    let packs: Vec<_> = image.files().filter(|name| name.starts_with("packs/")).collect();
    let bytes: u64 = packs.iter().map(|name| image.len_of(name)).sum();
    let (stored_bytes, objects) = (report.stored_bytes.unwrap_or(0), report.objects.unwrap_or(0));
    if packs.len() as u64 != report.packs || bytes != stored_bytes + 24 * report.packs {
        return Err(format!("{bytes} bytes of packs are left, and {report:?}"));
    }
    // A pack of which no more than a thirty-second is unneeded stays as it is.
    let unneeded = objects.checked_sub(collected.needed_objects);
    let is_told = |unneeded| unneeded == 0 || collected.unneeded_bytes > 0;
    if !unneeded.is_some_and(|unneeded| 32 * unneeded <= objects && is_told(unneeded)) {
        return Err(format!("objects are left that nothing needs: {report:?} after {collected:?}"));
    }
    let is_other = |name: &&str| name.rsplit('.').next() == Some("new") || name.starts_with("generations/");
    let others: Vec<_> = image.files().filter(is_other).collect();
    if others.len() > 1 {
        return Err(format!("files are left: {others:?}"));
    }
    Ok(())
}

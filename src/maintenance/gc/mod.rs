//! Collection of what no image needs any more.
//!
//! *Definitions.* **Needed** is what the images of all scopes and what workspaces were made from lead to (see `closure`). A
//! **generation** begins whenever packs are condemned. A session or reader **holds** the generation in which it began (see
//! `holds`), and finds everything that was there then.
//!
//! *Steps.* Mark what is needed, without a lock; meanwhile whoever makes an image or a workspace leaves a note (see
//! `needed`), and the notes are marked too until few are left. Write the catalog's dump, so that none names an image of which
//! something goes. Copy what is needed of packs of which most is not. Then one
//! transaction marks the last notes, publishes the copies and **condemns** the packs that nothing is needed of; from then
//! on nobody who begins finds anything in them. When all who began before are gone, a transaction forgets the packs, and
//! their files go.
//!
//! *Why nothing is lost.* (1) What is needed when packs are condemned is marked: it was needed when marking began, or noted
//! since. (2) What becomes needed later is made by a session. One that began after the condemnation found nothing in
//! condemned packs. One that began before may have, and it knows in which packs, and from which trees it took over parts: in
//! the transaction that makes its image, it brings them back (`engine::condemned::Reliance`). (3) What is read is in a pack that was
//! there when the reader began, and stays until it is done. (4) A large session's packs are protected by its lease until its
//! image makes them needed. (5) Of an object that several packs have, one place is marked, and of those that are there; the
//! index keeps the rows of all. (6) Where the disk is too full for the segments with which open packs would be condemned,
//! they are dropped at once, but only while nobody holds a generation and no lease is there but the collection's: nobody who
//! began before is left.
//!
//! At the end go files that no row names. A kill leaves marks that nobody sees, copies that the next collection finds
//! unneeded, or condemned packs that it removes.

mod copy;
mod marks;
mod options;
mod plan;
mod run;

pub use options::{GcOptions, GcReport};

//! Tests of layerstone from outside: one binary, a module for each question.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::large_stack_arrays,
    clippy::unnecessary_debug_formatting,
    reason = "a test fails by panicking"
)]
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "what is not run, and what a child reports, is printed"
)]

mod api;
mod bombs;
mod capabilities;
mod chains;
mod checkouts;
mod cli;
mod clocks;
mod coarse_times;
mod command_line;
mod compare;
mod concurrency;
mod costs;
mod crash;
mod creation;
mod damage;
mod damage_matrix;
mod documents;
mod edits;
mod fixtures;
mod foreign_marks;
mod full_disk;
mod fuzz;
mod gc;
mod given;
mod host_races;
mod hostile;
mod json_rules;
mod kill;
mod layers;
mod left_over;
mod limits;
mod live_trees;
mod model;
mod mounted;
mod mounts;
mod not_kept;
mod other_systems;
mod overlay;
mod own_lines;
mod plain_words;
mod poison;
mod raw_tar;
mod reflink;
mod reimport;
mod remedies;
mod repair;
mod roundtrip;
mod run;
mod run_refusals;
mod run_reports;
mod run_signals;
mod saved_images;
mod schema;
mod shared;
mod signals;
mod slips;
mod slow_sources;
mod system;
mod tar_ends;
mod tars;
mod tasks;
mod tenants;
mod tidy;
mod traced;
mod transcripts;
mod unprivileged;
mod untracked;
mod verify;
mod workspace_copies;
mod workspace_mounts;
mod workspace_places;
mod workspace_users;
mod workspaces;
mod write_order;

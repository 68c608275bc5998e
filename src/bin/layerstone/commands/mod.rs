//! The commands: each file has the arguments of one, calls the library and shows what it reports.

pub(crate) mod cat;
pub(crate) mod checkout;
pub(crate) mod commit;
mod damage;
pub(crate) mod diff;
pub(crate) mod export;
pub(crate) mod gc;
pub(crate) mod history;
pub(crate) mod image;
pub(crate) mod images;
pub(crate) mod import;
pub(crate) mod init;
pub(crate) mod inspect;
mod list;
pub(crate) mod ls;
mod made;
pub(crate) mod merge;
mod new_store;
pub(crate) mod project;
pub(crate) mod repair;
pub(crate) mod rm;
pub(crate) mod run;
pub(crate) mod schema;
mod source;
pub(crate) mod tag;
mod tar;
pub(crate) mod tree;
pub(crate) mod untag;
pub(crate) mod verify;
pub(crate) mod workspace;

use std::cell::{OnceCell, RefCell};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use layerstone::{Error, Project, ProjectName, Store, StoreOptions};

use crate::arguments::{Arguments, Command, GlobalArguments};
use crate::output::Output;
use crate::replacement::written_folder;
use crate::{Failure, environment, interrupt};

use new_store::NewStore;

type Outcome = Result<(), Failure>;

/// What every command works with.
pub(crate) struct Context {
    global: GlobalArguments,
    out: Output,
    /// Keeps the store open until the command has shown its result: closing it waits for what it does in the background.
    opened: OnceCell<Store>,
    /// The store that this command makes.
    made: RefCell<Option<NewStore>>,
}

impl Context {
    /// The directory that the user named for the store.
    fn named_store(&self) -> Option<PathBuf> {
        self.global.store.clone().or_else(environment::named_store)
    }

    fn location(&self) -> Result<PathBuf, Failure> {
        self.named_store().map_or_else(environment::default_store, Ok)
    }

    fn options(&self) -> Result<StoreOptions, Failure> {
        let timeout = Duration::from_secs_f64(self.global.lock_timeout);
        let options = StoreOptions::default().lock_timeout(timeout).task(interrupt::task());
        Ok(match environment::cache_bytes()? {
            Some(bytes) => options.workspace_cache_bytes(bytes),
            None => options,
        })
    }

    /// The store, which must be there.
    fn store(&self) -> Result<Store, Failure> {
        Ok(self.keep(self.options()?.create(false).open(self.location()?)?))
    }

    /// The store, which is made where there is none: for what puts the first things into it.
    fn new_store(&self) -> Result<Store, Failure> {
        let location = self.location()?;
        self.made.replace(NewStore::planned(&location));
        // A name that was mistyped must not make folders, and the user's data directory may have to be made.
        if self.named_store().is_none() {
            make_folders_of(&location)?;
        }
        Ok(self.keep(self.options()?.open(location)?))
    }

    fn keep(&self, store: Store) -> Store {
        self.opened.get_or_init(|| store).clone()
    }

    fn project(&self) -> Result<Project, Failure> {
        self.project_of(&self.store()?)
    }

    fn project_of(&self, store: &Store) -> Result<Project, Failure> {
        Ok(match self.named_project()? {
            Some(name) => store.project(&name)?,
            None => store.default_project()?,
        })
    }

    /// The project for what only reads. A default project that was never made sees the public scope alone, which stands in for
    /// it: so nothing has to be written.
    fn project_to_read(&self) -> Result<Project, Failure> {
        let store = self.store()?;
        if let Some(name) = self.named_project()? {
            return Ok(store.project(&name)?);
        }
        match store.project(&ProjectName::DEFAULT.parse::<ProjectName>().map_err(Error::from)?) {
            Err(error) if error.is_not_found() => {
                Ok(store.project(&ProjectName::PUBLIC.parse::<ProjectName>().map_err(Error::from)?)?)
            }
            found => Ok(found?),
        }
    }

    /// Refuses a file that is to be written among those of the store that is open.
    fn check_is_outside(&self, argument: &'static str, file: &Path) -> Outcome {
        let folder = written_folder(file);
        if self.opened.get().zip(folder).is_some_and(|(store, folder)| store.owns(folder)) {
            let file = file.display().to_string();
            let message = format!("'{}' lies in the store; name a file outside", file.escape_debug());
            return Err(usage(argument, &message));
        }
        Ok(())
    }

    /// The project that the user named, unless it is the default one.
    fn named_project(&self) -> Result<Option<ProjectName>, Failure> {
        let name =
            self.global.project.clone().map_or_else(environment::project_name, |name| Ok(Some(name)))?;
        Ok(name.filter(|name| name.as_str() != ProjectName::DEFAULT))
    }
}

/// Runs one command.
pub(crate) fn run(arguments: Arguments) -> Outcome {
    let Arguments { global, command } = arguments;
    let out = Output { json: global.json };
    let mut context = Context { global, out, opened: OnceCell::new(), made: RefCell::default() };
    let outcome = match &command {
        Command::Init(arguments) => init::run(&context, arguments),
        Command::Project(command) => project::run(&context, command),
        Command::Import(arguments) => import::run(&context, arguments),
        Command::Tag(arguments) => tag::run(&context, arguments),
        Command::Untag(arguments) => untag::run(&context, arguments),
        Command::Images(arguments) => images::run(&context, arguments),
        Command::Inspect(arguments) => inspect::run(&context, arguments),
        Command::History(arguments) => history::run(&context, arguments),
        Command::Diff(arguments) => diff::run(&context, arguments),
        Command::Ls(arguments) => ls::run(&context, arguments),
        Command::Cat(arguments) => cat::run(&context, arguments),
        Command::Checkout(arguments) => checkout::run(&context, arguments),
        Command::Commit(arguments) => commit::run(&context, arguments),
        Command::Workspace(command) => workspace::run(&context, command),
        Command::Run(arguments) => run::run(&context, arguments),
        Command::Merge(arguments) => merge::run(&context, arguments),
        Command::Tree(arguments) => tree::run(&context, arguments),
        Command::Export(arguments) => export::run(&context, arguments),
        Command::Verify(arguments) => verify::run(&context, arguments),
        Command::Gc(arguments) => gc::run(&context, arguments),
        Command::Repair(arguments) => repair::run(&context, arguments),
        Command::Rm(arguments) => rm::run(&context, arguments),
        Command::Schema(arguments) => schema::run(arguments),
        Command::Ps => workspace::run(&context, &workspace::WorkspaceCommand::Ls),
        Command::Image(command) => image::run(&context, command),
    };
    if outcome.is_ok() {
        interrupt::done();
    } else if let Some(made) = context.made.take() {
        // All that has the store open must have let go of it.
        context.opened.take();
        made.take_back();
    }
    outcome
}

/// Makes the folders that a path lies in, for this user alone.
fn make_folders_of(path: &Path) -> Result<(), Failure> {
    let Some(folder) = path.parent() else { return Ok(()) };
    let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder);
    made.map_err(|error| Failure::Store(Error::host(folder, "make the directory", error)))
}

fn usage(argument: &'static str, message: &str) -> Failure {
    Failure::Store(Error::usage(argument, message))
}

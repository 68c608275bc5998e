//! What a project may have, set by whoever runs the store.

use std::borrow::Cow;
use std::sync::Arc;

use serde::Serialize;

use crate::catalog::ReadTables;
use crate::catalog::record::ProjectRecord;
use crate::catalog::table::Projects;
use crate::error::{Error, ErrorKind, Result, Subject};
use crate::name::ProjectName;
use crate::pack::generation::GenerationGuard;
use crate::pack::reader::ObjectReader;

use super::Store;
use super::commit::CommitOptions;
use super::project::{Project, no_such_project};
use crate::engine::session::WriteSession;

/// What a project may have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[non_exhaustive]
pub struct ProjectLimits {
    /// Most bytes of file content in what one commit adds or modifies; none for no limit.
    pub max_layer_bytes: Option<u64>,
}

impl ProjectLimits {
    /// Sets [`max_layer_bytes`](Self::max_layer_bytes).
    #[must_use]
    pub fn max_layer_bytes(mut self, bytes: Option<u64>) -> Self {
        self.max_layer_bytes = bytes;
        self
    }
}

impl From<&ProjectRecord> for ProjectLimits {
    fn from(record: &ProjectRecord) -> Self {
        Self { max_layer_bytes: record.max_layer_bytes }
    }
}

impl Store {
    /// Sets what a project may have from now on; images that it has stay. Errors: [`NotFound`](ErrorKind::NotFound), and
    /// [`Invalid`](ErrorKind::Invalid) for `public`, which has no limits.
    pub fn limit_project(&self, name: &ProjectName, limits: ProjectLimits) -> Result<()> {
        if name.is_public() {
            return Err(Error::invalid(
                Subject::Project(name.to_string()),
                "is the public scope, which has no limits",
            ));
        }
        self.0.write(|tx| {
            let record = tx.get::<Projects>(name)?.ok_or_else(|| no_such_project(name))?;
            let ProjectLimits { max_layer_bytes } = limits;
            tx.put::<Projects>(name, &ProjectRecord { max_layer_bytes, ..record })
        })
    }
}

impl Project {
    /// What this project may have.
    pub fn limits(&self) -> Result<ProjectLimits> {
        self.store.read(|tx| self.limits_in(tx))
    }

    /// Begins a commit, whose options then have the project's limit too. What it is based on was found under `hold`.
    pub(super) fn begin_commit<'o>(
        &self,
        hold: &Arc<GenerationGuard>,
        options: &'o CommitOptions,
    ) -> Result<(WriteSession, ObjectReader, Cow<'o, CommitOptions>)> {
        let catalog = self.store.catalog()?;
        let own = catalog.read(|tx| self.limits_in(tx))?.max_layer_bytes;
        let options = match (own, options.max_layer_bytes) {
            (Some(own), wanted) if wanted.is_none_or(|wanted| own < wanted) => {
                Cow::Owned(CommitOptions { max_layer_bytes: Some(own), ..options.clone() })
            }
            _ => Cow::Borrowed(options),
        };
        let (session, reader) = self.store.begin_session(hold)?;
        Ok((session, reader, options))
    }
}

/// Fails with *quota exceeded* if a commit changes more bytes than it may.
pub(super) fn check_layer_bytes(bytes: u64, limit: Option<u64>) -> Result<()> {
    let Some(limit) = limit.filter(|limit| bytes > *limit) else { return Ok(()) };
    let message = format!(
        "exceeded: what changed has {bytes} bytes, and the limit is {limit}; change less, or raise the limit"
    );
    Err(Error::new(ErrorKind::QuotaExceeded, Subject::Argument("max_layer_bytes"), message))
}

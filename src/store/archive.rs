//! Temporary.
use super::{Image, ImportOptions, Project, WriteReport};
use crate::error::{Error, Result, Subject};
use std::io::{Read, Write};
impl Project {
    /// x
    pub fn import_tar(&self, _r: impl Read, _o: &ImportOptions) -> Result<WriteReport> {
        Err(Error::unsupported(Subject::Archive, "not yet"))
    }
}
impl Image {
    /// x
    pub fn export(&self, _w: impl Write) -> Result<()> {
        Err(Error::unsupported(Subject::Archive, "not yet"))
    }
}

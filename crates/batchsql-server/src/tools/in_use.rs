//! Owns the refusal to replay a file that `run` appends to.
//! Must not know what is in it.

use std::path::Path;

use crate::exit::Failure;

/// # Errors
/// It is the file that `run` appends to.
pub(super) fn refuse(path: &Path, appended: &Path) -> Result<(), Failure> {
    let is_same = match (path.canonicalize(), appended.canonicalize()) {
        (Ok(one), Ok(other)) => one == other,
        _ => path == appended,
    };
    if !is_same {
        return Ok(());
    }
    let path = path.display();
    Err(Failure::mistake(format!(
        "{path} is the file that `run` appends to; rename it first, then replay the renamed file"
    )))
}

//! The YAML files of a folder; an empty result is an error.
//! Must not know their content.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::Context;

/// The files whose names begin with `prefix`, by name.
///
/// # Errors
/// The folder cannot be read, or there are none.
pub(crate) fn yaml(folder: &Path, prefix: &str) -> anyhow::Result<Vec<PathBuf>> {
    let entries = fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?;
    let mut files = Vec::new();
    for entry in entries {
        let name = entry.with_context(|| format!("cannot read {}", folder.display()))?.file_name();
        let text = name.to_str().with_context(|| format!("a file name in {} is not UTF-8", folder.display()))?;
        if text.starts_with(prefix) && text.ends_with(".yml") {
            files.push(folder.join(text));
        }
    }
    files.sort();
    anyhow::ensure!(!files.is_empty(), "there is no {prefix}*.yml in {}", folder.display());
    Ok(files)
}

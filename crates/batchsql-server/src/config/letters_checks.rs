//! Owns the checks of the section `[dead_letters]`: lines are added to its file, so it is no other file, and no source reads it.
//! Must not know what is in it.

use std::ops::Range;
use std::path::{Path, PathBuf};

use crate::config::mistakes::Mistakes;
use crate::config::settings::{Files, Source, SourceKind};
use crate::config::taken_files::TakenFiles;
use crate::pattern_folders::{folder_of, folders_of};
use crate::same_file::is_same;

/// The file of `[dead_letters]`, if it names one.
pub(super) fn file(
    checks: &mut Mistakes<'_>,
    (span, given): (Range<usize>, &Path),
    folder: &Path,
    taken: TakenFiles<'_>,
) -> Option<PathBuf> {
    let file = folder.join(given);
    let is_folder = given.as_os_str().is_empty() || given.as_os_str().to_string_lossy().ends_with('/') || file.is_dir();
    if is_folder {
        let what = if given.as_os_str().is_empty() {
            "is empty".to_owned()
        } else {
            format!("{} is a folder", given.display())
        };
        checks.problem(span, format!("the `file` of dead letters {what}; name a file, for example letters.ndjson"));
        return None;
    }
    if let Some(what) = taken.uses(&file) {
        checks.problem(span, format!("the file of dead letters {} {what}; name another one", given.display()));
        return None;
    }
    Some(file)
}

/// Sources do not read the file: its lines would become rows.
pub(super) fn is_not_read(checks: &mut Mistakes<'_>, (span, file): (Range<usize>, &Path), sources: &[Source]) {
    for Source { id, kind } in sources {
        if let SourceKind::Files(files) = kind
            && is_found(files, file)
        {
            checks.problem(
                span.clone(),
                format!(
                    "the file of dead letters {} fits `files` of the source `{id}`, which would read it as rows; put it into another \
                     folder, or change `files`",
                    file.display()
                ),
            );
        }
    }
}

/// Whether the source reads the file, or would if it were there.
fn is_found(files: &Files, file: &Path) -> bool {
    let pattern = Path::new(&files.pattern);
    let mut found = glob::glob(&files.pattern).into_iter().flatten().filter_map(Result::ok);
    if file.exists() && found.any(|found| is_same(&found, file)) {
        return true;
    }
    let (Some(name), Some(of_names)) = (file.file_name(), pattern.file_name()) else { return false };
    let fits =
        glob::Pattern::new(&of_names.to_string_lossy()).is_ok_and(|of_names| of_names.matches(&name.to_string_lossy()));
    let folder = folder_of(file);
    fits && folders_of(pattern).any(|found| is_same(&found, &folder))
}

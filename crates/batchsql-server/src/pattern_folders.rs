//! Owns in which folders the files of a pattern may be.
//! Must not know what is in them, or who looks for them.

use std::path::{Path, PathBuf};

/// The folders that are there. A `**` at the end of their own pattern gives the folders below only, so the one above is given too.
pub(crate) fn folders_of(pattern: &Path) -> impl Iterator<Item = PathBuf> + use<> {
    let folders = folder_of(pattern);
    let mut base = folders.clone();
    while base.ends_with("**") {
        base = folder_of(&base);
    }
    let above = (base != folders).then_some(base);
    let found = above.into_iter().chain([folders]).flat_map(|folders| glob::glob(&folders.to_string_lossy()));
    found.flatten().filter_map(Result::ok).filter(|path| path.is_dir())
}

/// The folder of a path, or the pattern of the folders.
pub(crate) fn folder_of(path: &Path) -> PathBuf {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder.to_owned(),
        _ => PathBuf::from("."),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_folder_above_two_stars_is_one_of_them() {
        let place = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(place.path().join("in/a/b")).unwrap();
        std::fs::write(place.path().join("in/file"), "").unwrap();
        let root = glob::Pattern::escape(&place.path().to_string_lossy());
        let check = |pattern: &str, expected: &[&str]| {
            let found = folders_of(&Path::new(&root).join(pattern));
            let mut found: Vec<PathBuf> =
                found.map(|path| path.strip_prefix(place.path()).unwrap().to_owned()).collect();
            found.sort();
            assert_eq!(found, expected.iter().map(PathBuf::from).collect::<Vec<_>>(), "{pattern}");
        };
        check("in/*.csv", &["in"]);
        check("in/*/*.csv", &["in/a"]);
        check("in/**/*.csv", &["in", "in/a", "in/a/b"]);
        check("in/**/**/*.csv", &["in", "in/a", "in/a/b"]);
        check("**/*.csv", &["", "in", "in/a", "in/a/b"]);
        check("in/**/b/*.csv", &["in/a/b"]);
        assert_eq!(folder_of(Path::new("*.csv")), Path::new("."));
    }
}

//! Programs on this machine.
//! Must not know their purpose.

use std::{
    env,
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
};

/// Folders with servers that are often not in PATH.
const PLACES: &[&str] = &["/usr/sbin", "/usr/local/sbin", "/usr/libexec"];

/// Folders of PostgreSQL servers, one per version: on Debian, on Fedora, by Homebrew.
const POSTGRES: &[&str] = &["/usr/lib/postgresql/*/bin", "/usr/pgsql-*/bin", "/opt/homebrew/opt/postgresql@*/bin"];

/// The first of these programs that is in PATH or in a usual place.
pub(crate) fn program(names: &[&str]) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    names.iter().find_map(|name| in_folders(name, search_path(&path).chain(PLACES.iter().map(PathBuf::from))))
}

/// The folder with all of these programs of PostgreSQL: in PATH, else the highest version.
pub(crate) fn postgres(names: &[&str]) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let installed = POSTGRES.iter().flat_map(|pattern| versions(pattern));
    let complete = |folder: &PathBuf| names.iter().all(|name| is_program(&folder.join(name)));
    search_path(&path).chain(installed).find(complete)
}

/// A program that belongs to another one: in the same folder, else anywhere.
pub(crate) fn beside(program: &Path, names: &[&str]) -> Option<PathBuf> {
    let real = program.canonicalize().ok();
    let folders = [Some(program), real.as_deref()].into_iter().flatten().filter_map(Path::parent).map(PathBuf::from);
    let folders: Vec<_> = folders.collect();
    names.iter().find_map(|name| in_folders(name, folders.iter().cloned())).or_else(|| self::program(names))
}

fn search_path(path: &OsString) -> impl Iterator<Item = PathBuf> {
    // An empty entry would be the current folder.
    env::split_paths(path).filter(|folder| folder.is_absolute())
}

fn in_folders(name: &str, mut folders: impl Iterator<Item = PathBuf>) -> Option<PathBuf> {
    folders.find_map(|folder| Some(folder.join(name)).filter(|path| is_program(path)))
}

fn is_program(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;

    path.metadata().is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & 0o111 != 0)
}

/// The folders of a pattern with one `*` for a version, the highest first.
fn versions(pattern: &str) -> Vec<PathBuf> {
    let (before, after) = pattern.split_once('*').expect("the pattern has a version");
    let (parent, prefix) = before.rsplit_once('/').expect("the pattern is absolute");
    let entries = fs::read_dir(parent).into_iter().flatten().flatten();
    let mut found: Vec<(u32, PathBuf)> = entries
        .filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            let version = name.strip_prefix(prefix)?.split('.').next()?.parse().ok()?;
            Some((version, PathBuf::from(format!("{parent}/{name}{after}"))))
        })
        .collect();
    found.sort_by(|(a, _), (b, _)| b.cmp(a));
    found.into_iter().map(|(_, folder)| folder).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_found_by_name() {
        let sh = program(&["there-is-no-such-program", "sh"]).unwrap();
        assert_eq!(sh.file_name().unwrap(), "sh");
        assert_eq!(program(&["there-is-no-such-program"]), None);
        assert!(beside(&sh, &["cat"]).is_some());
    }

    #[test]
    fn a_search_path_does_not_lead_into_the_current_folder() {
        let path = OsString::from("/a::relative:/b");
        assert_eq!(search_path(&path).collect::<Vec<_>>(), [Path::new("/a"), Path::new("/b")]);
    }

    #[test]
    fn the_highest_version_comes_first() {
        let folder = env::temp_dir().join(format!("batchsql-versions-{}", std::process::id()));
        for version in ["9.6", "15", "17", "x"] {
            fs::create_dir_all(folder.join(format!("pg-{version}/bin"))).unwrap();
        }
        let found = versions(&format!("{}/pg-*/bin", folder.display()));
        let expected = ["17", "15", "9.6"].map(|version| folder.join(format!("pg-{version}/bin")));
        fs::remove_dir_all(&folder).unwrap();
        assert_eq!(found, expected);
    }
}

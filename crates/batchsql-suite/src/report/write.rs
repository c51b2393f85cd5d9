//! The files of a report on disk: written atomically, in a folder that is checked before the run.
//! Must not know the content of the files.

use std::fs;
use std::path::Path;

use anyhow::Context as _;

use super::model::Report;
use super::{html, json, junit};

/// The files that [`write_all`] writes.
pub const FILES: [&str; 3] = ["report.json", "report.html", "junit.xml"];

/// Writes `report.json`, `report.html` and `junit.xml` into `dir`, which is created if missing.
///
/// Each file gets its name only when it is complete, so a reader never sees a partial file.
///
/// # Errors
/// The folder cannot be written; the message names it.
pub fn write_all(report: &Report, dir: &Path) -> anyhow::Result<()> {
    make(dir)?;
    let [json_name, html_name, junit_name] = FILES;
    // The data first: the other files can be made from it if one of them fails.
    write(dir, json_name, &json::to_string(report)?)?;
    write(dir, html_name, &html::to_string(report)?)?;
    write(dir, junit_name, &junit::to_string(report)?)
}

/// Checks that [`write_all`] will be able to write into `dir`, and creates it if missing.
///
/// Call it before a run, so that its results are not lost at the end.
///
/// # Errors
/// The folder cannot be written; the message names it.
pub fn check_writable(dir: &Path) -> anyhow::Result<()> {
    make(dir)?;
    for name in FILES {
        anyhow::ensure!(!dir.join(name).is_dir(), "{}: `{name}` is a folder there", refusal(dir));
    }
    let probe = temporary(dir, "probe");
    fs::write(&probe, b"probe").with_context(|| refusal(dir))?;
    fs::remove_file(&probe).with_context(|| refusal(dir))
}

fn make(dir: &Path) -> anyhow::Result<()> {
    fs::create_dir_all(dir).with_context(|| refusal(dir))
}

fn write(dir: &Path, name: &str, text: &str) -> anyhow::Result<()> {
    let half = temporary(dir, name);
    let written = fs::write(&half, text).and_then(|()| fs::rename(&half, dir.join(name)));
    if written.is_err() {
        // The first error is reported; whether the partial file could be removed does not matter.
        let _ = fs::remove_file(&half);
    }
    written.with_context(|| format!("{}: `{name}`", refusal(dir)))
}

/// In the same folder, because a rename across file systems is not atomic. With the process id,
/// because two runs may share a folder.
fn temporary(dir: &Path, name: &str) -> std::path::PathBuf {
    dir.join(format!(".{name}.{}.tmp", std::process::id()))
}

fn refusal(dir: &Path) -> String {
    format!("cannot write the report into the folder `{}`", dir.display())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::sample;

    fn names(dir: &Path) -> Vec<String> {
        let mut names: Vec<_> =
            fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn writes_every_file_and_nothing_else() {
        let scratch = tempfile::tempdir().unwrap();
        let dir = scratch.path().join("deep/report");
        check_writable(&dir).unwrap();
        assert_eq!(names(&dir), Vec::<String>::new());
        for _ in 0..2 {
            // The second round replaces the files of the first.
            write_all(&sample::report(), &dir).unwrap();
            assert_eq!(names(&dir), ["junit.xml", "report.html", "report.json"]);
        }
        assert!(json::read(&dir.join("report.json")).unwrap() == sample::report());
    }

    #[test]
    fn a_folder_that_cannot_be_written_is_named() {
        // Below a regular file not even root can create a folder.
        let file = tempfile::NamedTempFile::new().unwrap();
        let dir = file.path().join("report");
        for error in [check_writable(&dir).unwrap_err(), write_all(&sample::report(), &dir).unwrap_err()] {
            let message = format!("{error:#}");
            assert!(message.starts_with("cannot write the report into the folder"), "{message}");
            assert!(message.contains(&dir.display().to_string()), "{message}");
        }
    }

    #[test]
    fn a_folder_in_the_place_of_a_file_is_named_and_leaves_no_half_file() {
        let scratch = tempfile::tempdir().unwrap();
        fs::create_dir(scratch.path().join("report.html")).unwrap();
        for error in
            [check_writable(scratch.path()).unwrap_err(), write_all(&sample::report(), scratch.path()).unwrap_err()]
        {
            assert!(format!("{error:#}").contains("report.html"), "{error:#}");
        }
        assert_eq!(names(scratch.path()), ["report.html", "report.json"]);
    }
}

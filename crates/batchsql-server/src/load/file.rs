//! Owns what a file is: its form by its name, and its identity by its content.
//! Must not know tables.

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use sha2::{Digest, Sha256};

use crate::coding::part::Coding;
use crate::coding::reader::CodedReader;
use crate::config::sections::Format;
use crate::exit::Failure;

const PART: usize = 1 << 20;
/// Why standard input and pipes are no files to load.
const TWICE: &str = "this is no file; a file is read twice, and again by a later run; write it to a file first, or let `batchsql run` read \
                     standard input";

/// A file to be loaded.
#[derive(Debug, Clone)]
pub(crate) struct Input {
    pub(crate) path: PathBuf,
    pub(crate) format: Format,
    coding: &'static str,
    pub(crate) bytes: u64,
    /// SHA-256 of the file as it is, in hexadecimal. Empty if it was only looked at.
    pub(crate) digest: String,
    modified: Option<SystemTime>,
}

impl Input {
    /// Looks at a file without reading it: it has no digest.
    ///
    /// # Errors
    /// There is none, or its name does not say its form.
    pub(crate) fn look(path: &Path, format: Option<Format>) -> Result<Self, Failure> {
        let mistake = |text: &str| Failure::mistake(format!("{}: {text}", path.display()));
        if path.as_os_str() == "-" {
            return Err(mistake(TWICE));
        }
        let found = std::fs::metadata(path);
        match &found {
            Ok(found) if found.is_dir() => return Err(mistake("this is a folder; name its files")),
            Ok(found) if !found.is_file() => return Err(mistake(TWICE)),
            _ => {}
        }
        let (named, coding) = of_name(path);
        let format = format.or(named).ok_or_else(|| mistake(&advice(path)))?;
        if format.has_batches() {
            if coding != "identity" {
                return Err(mistake(
                    "its values are compressed inside, so it is not read from another compression; decompress it",
                ));
            }
            if cfg!(not(feature = "arrow")) {
                return Err(mistake(
                    "this program was built without Parquet and Arrow; build it with --features arrow",
                ));
            }
        }
        let found = found.map_err(|error| unreadable(path, &error))?;
        let (bytes, modified) = (found.len(), found.modified().ok());
        Ok(Self { path: path.to_owned(), format, coding, bytes, digest: String::new(), modified })
    }

    /// Looks at a file, and reads it once: its content is its identity, so a copy is the same file, and one that has changed is
    /// another. `read` gets the number of bytes that were read.
    ///
    /// # Errors
    /// The file cannot be read, or its name does not say its form.
    pub(crate) fn open(path: &Path, format: Option<Format>, mut read: impl FnMut(u64)) -> Result<Self, Failure> {
        let looked = Self::look(path, format)?;
        let failed = |error| unreadable(path, &error);
        let mut file = File::open(path).map_err(failed)?;
        let modified = file.metadata().and_then(|found| found.modified()).ok();
        let (mut hash, mut part, mut bytes) = (Sha256::new(), vec![0; PART], 0);
        loop {
            match file.read(&mut part).map_err(failed)? {
                0 => break,
                length => {
                    hash.update(&part[..length]);
                    bytes += length as u64;
                    read(length as u64);
                }
            }
        }
        let digest = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        Ok(Self { bytes, digest, modified, ..looked })
    }

    /// Whether the file is another one than when it was opened.
    pub(crate) fn has_changed(&self) -> bool {
        std::fs::metadata(&self.path)
            .is_ok_and(|found| found.len() != self.bytes || found.modified().ok() != self.modified)
    }

    /// The content, decompressed. `count` gets the bytes of the file that were read.
    ///
    /// # Errors
    /// The file cannot be opened.
    pub(crate) fn read<C: FnMut(u64) + Send>(&self, count: C) -> io::Result<impl Read + Send + use<C>> {
        let file = Counted { from: BufReader::with_capacity(PART, File::open(&self.path)?), count };
        let coding = Coding::of(self.coding).expect("it is one of those that names stand for");
        Ok(CodedReader::new(file, coding))
    }
}

struct Counted<R, C> {
    from: R,
    count: C,
}

impl<R: Read, C: FnMut(u64)> Read for Counted<R, C> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.from.read(buffer)?;
        (self.count)(length as u64);
        Ok(length)
    }
}

fn unreadable(path: &Path, error: &io::Error) -> Failure {
    Failure::unavailable(format!("{}: the file cannot be read: {error}", path.display()))
}

/// What to do about a name that does not say its form.
fn advice(path: &Path) -> String {
    let ending = path.extension().unwrap_or_default().to_ascii_lowercase();
    match ending.to_str() {
        Some("tsv" | "tab") => {
            "if its fields are separated by tabs, load it with --format csv --delimiter $'\\t'".to_owned()
        }
        Some("json") => "if each line is an object, load it with --format ndjson; an array is not read, write its \
                         objects as lines (jq -c '.[]')"
            .to_owned(),
        _ => {
            let formats = if cfg!(feature = "arrow") { "csv, ndjson, parquet or arrow" } else { "csv or ndjson" };
            format!("the name does not say what it is; give the format: {formats}")
        }
    }
}

/// The form and the compression that a name stands for.
fn of_name(path: &Path) -> (Option<Format>, &'static str) {
    let name = path.file_name().map(|name| name.to_string_lossy().to_ascii_lowercase()).unwrap_or_default();
    let packed = [(".gz", "gzip"), (".zst", "zstd"), (".zstd", "zstd")];
    let (name, coding) = packed
        .iter()
        .find_map(|(ending, coding)| Some((name.strip_suffix(ending)?.to_owned(), *coding)))
        .unwrap_or((name.clone(), "identity"));
    let format = match name.rsplit_once('.').map(|(_, ending)| ending) {
        Some("csv") => Some(Format::Csv),
        Some("ndjson" | "jsonl") => Some(Format::Ndjson),
        Some("parquet" | "pq") => Some(Format::Parquet),
        Some("arrow" | "arrows" | "feather" | "ipc") => Some(Format::Arrow),
        _ => None,
    };
    (format, coding)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_says_what_a_file_is() {
        let check = |name: &str, format, coding| assert_eq!(of_name(Path::new(name)), (format, coding), "{name}");
        check("in/a.csv", Some(Format::Csv), "identity");
        check("a.CSV.GZ", Some(Format::Csv), "gzip");
        check("a.2026-01-31.ndjson.zst", Some(Format::Ndjson), "zstd");
        check("a.jsonl", Some(Format::Ndjson), "identity");
        check("a.parquet", Some(Format::Parquet), "identity");
        check("a.Feather", Some(Format::Arrow), "identity");
        check("a.arrows", Some(Format::Arrow), "identity");
        check("a.txt", None, "identity");
        check("csv", None, "identity");
    }
}

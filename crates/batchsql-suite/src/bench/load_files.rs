//! Owns the files that are loaded: the same rows as CSV and as Parquet.
//! Must not know databases or tools.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

/// The columns of the files and of the table, with types that every database knows.
pub(super) const COLUMNS: &str =
    "id BIGINT NOT NULL, customer VARCHAR(40) NOT NULL, amount DOUBLE PRECISION, quantity INTEGER, note VARCHAR(80)";

/// What makes the Parquet file of the CSV file.
const TO_PARQUET: &str = "\
import sys, pyarrow as pa, pyarrow.csv as csv, pyarrow.parquet as parquet
types = {'id': pa.int64(), 'customer': pa.string(), 'amount': pa.float64(), 'quantity': pa.int32(),
         'note': pa.string()}
parquet.write_table(csv.read_csv(sys.argv[1], convert_options=csv.ConvertOptions(column_types=types)), sys.argv[2],
                    compression='zstd', row_group_size=200_000)
";

/// The files, in a folder that is removed at the end.
pub(super) struct Files {
    folder: tempfile::TempDir,
    /// Python with pyarrow has made it.
    has_parquet: bool,
}

impl Files {
    pub(super) fn make(rows: usize) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("batchsql-load-").tempdir()?;
        write_csv(&folder.path().join("orders.csv"), rows).context("cannot write the CSV file")?;
        let mut files = Self { folder, has_parquet: false };
        let (csv, parquet) = (files.csv(), files.folder.path().join("orders.parquet"));
        let made = python().args(["-c", TO_PARQUET]).args([&csv, &parquet]).output();
        files.has_parquet = made.is_ok_and(|made| made.status.success());
        if !files.has_parquet {
            eprintln!(
                "skipped: Parquet. It needs Python with pyarrow: python3 -m pip install pyarrow, or BATCHSQL_PYTHON"
            );
        }
        Ok(files)
    }

    pub(super) fn csv(&self) -> PathBuf {
        self.folder.path().join("orders.csv")
    }

    pub(super) fn parquet(&self) -> Option<PathBuf> {
        self.has_parquet.then(|| self.folder.path().join("orders.parquet"))
    }
}

/// Python, or the one of a virtual environment.
pub(super) fn python() -> Command {
    Command::new(std::env::var_os("BATCHSQL_PYTHON").unwrap_or_else(|| "python3".into()))
}

fn write_csv(path: &Path, rows: usize) -> std::io::Result<()> {
    let mut file = BufWriter::with_capacity(1 << 20, File::create(path)?);
    file.write_all(b"id,customer,amount,quantity,note\n")?;
    let mut line = String::new();
    for id in 0..rows as u64 {
        // The same rows in every run; the numbers are spread like those of strangers.
        let odd = id.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
        line.clear();
        let (whole, part) = (odd % 100_000, odd % 100);
        let _ = writeln!(line, "{id},customer {odd:010},{whole}.{part:02},{},a note on order {id}", odd % 50);
        file.write_all(line.as_bytes())?;
    }
    file.flush()
}

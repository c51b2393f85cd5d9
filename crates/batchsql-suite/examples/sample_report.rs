//! Writes a sample report, to view the page without a run:
//! `cargo run -p batchsql-suite --example sample_report -- FOLDER [edges]`.

use std::path::PathBuf;

use batchsql_suite::report::{self, sample};

fn main() -> anyhow::Result<()> {
    let mut args = std::env::args_os().skip(1);
    let dir = PathBuf::from(args.next().ok_or_else(|| anyhow::anyhow!("pass the folder to write into"))?);
    let made = match args.next() {
        Some(kind) if kind == "edges" => sample::edges(),
        Some(kind) => anyhow::bail!("unknown kind of sample: {}", kind.display()),
        None => sample::report(),
    };
    report::check_writable(&dir)?;
    report::write_all(&made, &dir)?;
    let columns = std::env::var("COLUMNS").ok().and_then(|columns| columns.parse().ok());
    println!("{}", report::table::render(&made, columns));
    println!("{}", dir.join("report.html").display());
    Ok(())
}

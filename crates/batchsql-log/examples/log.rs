//! Looks into the folder of a log, also of one that is in use: `log inspect|verify|export FOLDER`.
//!
//! `export` writes one line per block to standard output: table, partition, first sequence, rows, settled, and the bytes of
//! the block as hexadecimal digits.

use std::{
    env,
    error::Error,
    io::{self, Write},
    process::ExitCode,
};

use batchsql_log::{Options, Recovery, tools};

fn main() -> Result<ExitCode, Box<dyn Error>> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [verb, folder] = arguments.as_slice() else {
        eprintln!("usage: log inspect|verify|export FOLDER");
        return Ok(ExitCode::from(2));
    };
    let options = Options::new(folder);
    let recovery = match verb.as_str() {
        "inspect" => inspect(&options)?,
        "verify" => tools::verify(&options)?,
        "export" => export(&options)?,
        other => {
            eprintln!("unknown verb {other}; use inspect, verify or export");
            return Ok(ExitCode::from(2));
        }
    };
    let is_whole = report(&recovery);
    Ok(if is_whole { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn inspect(options: &Options) -> Result<Recovery, Box<dyn Error>> {
    let inspection = tools::inspect(options)?;
    println!("partitions per table: {}", inspection.partitions);
    for file in &inspection.files {
        let settled = if file.is_settled { ", all settled" } else { "" };
        println!("{}: {} bytes, {} blocks{settled}", file.name, file.bytes, file.blocks);
    }
    for state in &inspection.recovery.partitions {
        let (name, partition, next) = (&state.table_name, state.partition, state.next);
        println!("{name}, partition {partition}: settled up to {}, next row {next}", state.settled_up_to);
    }
    Ok(inspection.recovery)
}

fn export(options: &Options) -> Result<Recovery, Box<dyn Error>> {
    let mut out = io::BufWriter::new(io::stdout().lock());
    let recovery = tools::export(options, |exported| {
        let block = &exported.block;
        write!(out, "{}\t{}\t{}\t{}\t", exported.table, exported.partition, block.first, block.count)?;
        write!(out, "{}\t", exported.is_settled)?;
        block.bytes.iter().try_for_each(|byte| write!(out, "{byte:02x}"))?;
        writeln!(out)
    })?;
    out.flush()?;
    Ok(recovery)
}

/// To standard error, so that an export stays clean. Returns whether nothing is damaged or missing, for certain.
fn report(recovery: &Recovery) -> bool {
    eprintln!(
        "{} segments, {} blocks, {} bytes behind the last sync",
        recovery.segments, recovery.blocks, recovery.torn_bytes
    );
    for damage in &recovery.damages {
        eprintln!("damaged: {} from byte {} on, {} bytes", damage.file, damage.offset, damage.length);
    }
    for segment in &recovery.unfinished_segments {
        eprintln!("unfinished: {} has {} bytes and no header", segment.file, segment.length);
    }
    for gap in &recovery.gaps {
        eprintln!("missing: rows {} to {} of partition {} of {:?}", gap.first, gap.last, gap.partition, gap.table);
    }
    recovery.damages.is_empty() && recovery.gaps.is_empty() && recovery.unfinished_segments.is_empty()
}

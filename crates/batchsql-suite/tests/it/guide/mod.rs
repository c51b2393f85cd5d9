//! The checks of the monitoring guide: its tables match the catalogue and the options of the suite, and both languages
//! have the same content, as do those of the README. Its examples are doctests of `batchsql`; `batchsql-monitoring`
//! parses its queries.

mod page;

use std::collections::BTreeSet;
use std::path::Path;

use batchsql::metrics::Metric;
use batchsql_suite::cli::Options;
use clap::CommandFactory;

use self::page::{DOCS, Page};

const GUIDES: [&str; 2] = ["monitoring-guide.md", "monitoring-guide.zh.md"];

#[test]
fn the_tables_of_metrics_are_the_catalogue() {
    let catalogue: BTreeSet<[String; 3]> = Metric::ALL
        .iter()
        .map(|metric| [metric.name().to_owned(), format!("{:?}", metric.kind()), metric.labels().join(", ")])
        .collect();
    for name in GUIDES {
        let rows = Page::read(name).rows();
        let metrics: Vec<_> = rows.iter().filter(|row| row.len() == 4 && row[0].starts_with("`batchsql_")).collect();
        let shown: BTreeSet<_> =
            metrics.iter().map(|row| [row[0].trim_matches('`').to_owned(), row[1].clone(), row[3].clone()]).collect();
        assert_eq!(shown, catalogue, "{name}");
        assert_eq!(metrics.len(), catalogue.len(), "{name} has a metric twice");
        assert!(metrics.iter().all(|row| !row[2].is_empty()), "{name} has a metric without a description");
    }
}

#[test]
fn the_table_of_options_is_that_of_the_suite() {
    let command = Options::command();
    let options: BTreeSet<[String; 3]> = command
        .get_arguments()
        .filter_map(|argument| {
            let variable = argument.get_env()?.to_str().unwrap().to_owned();
            let defaults: Vec<_> = argument.get_default_values().iter().map(|value| value.to_str().unwrap()).collect();
            Some([variable, format!("--{}", argument.get_long().unwrap()), defaults.join(",")])
        })
        .collect();
    assert!(options.len() > 10, "{options:?}");
    for name in GUIDES {
        let rows = Page::read(name).rows();
        let shown: BTreeSet<_> = rows
            .iter()
            .filter(|row| row.len() == 4 && row[1].starts_with("`--"))
            .map(|row| [row[0].trim_matches('`').to_owned(), row[1].trim_matches('`').to_owned(), row[2].clone()])
            .collect();
        assert_eq!(shown, options, "{name}");
    }
}

#[test]
fn the_table_of_the_example_service_names_what_it_reads() {
    let settings = include_str!("../../../../batchsql/examples/monitored_app/settings.rs");
    let code = settings.split("impl Settings").nth(1).unwrap();
    let is_variable = |text: &&str| text.contains('_') && text.bytes().all(|b| b.is_ascii_uppercase() || b == b'_');
    let read: BTreeSet<&str> = code.split('"').skip(1).step_by(2).filter(is_variable).collect();
    assert!(read.contains("ROWS_PER_SECOND") && read.len() > 5, "{read:?}");
    for name in GUIDES {
        let rows = Page::read(name).rows();
        let service =
            rows.iter().filter(|row| row.len() == 3 && is_variable(&row[0].split('`').nth(1).unwrap_or_default()));
        let cells: Vec<_> = service.map(|row| row[0].as_str()).collect();
        let shown: BTreeSet<&str> = cells.iter().flat_map(|cell| cell.split('`').skip(1).step_by(2)).collect();
        assert_eq!(shown, read, "{name}");
        for (variable, default) in [("ROWS_PER_SECOND", "1000"), ("PROMETHEUS_PORT", "9090")] {
            assert!(code.contains(&format!("parsed(\"{variable}\", \"{default}\"")), "{variable}");
            assert!(rows.iter().any(|row| row.len() == 3 && row[0].contains(variable) && row[1] == default), "{name}");
        }
    }
}

#[test]
fn both_languages_say_the_same() {
    let [english, chinese] = GUIDES.map(Page::read);
    assert_eq!(english.levels(), chinese.levels(), "different headings");
    let blocks = english.blocks();
    assert!(blocks.len() > 10, "{}", blocks.len());
    for (number, (one, other)) in english.code().iter().zip(chinese.code()).enumerate() {
        assert_eq!(*one, other, "block {number}");
    }
    assert_eq!(blocks.len(), chinese.blocks().len());
    // Comments are prose: the same number, each in its language.
    assert_eq!(english.comments().len(), chinese.comments().len());
    let is_chinese = |text: &String| text.chars().any(|c| ('\u{4e00}'..='\u{9fff}').contains(&c));
    assert!(english.comments().len() > 20, "{:?}", english.comments());
    assert!(!english.comments().iter().any(is_chinese), "{:?}", english.comments());
    let foreign: Vec<_> = chinese.comments().into_iter().filter(|text| !is_chinese(text)).collect();
    assert!(foreign.is_empty(), "not translated: {foreign:#?}");
    assert_eq!(english.widths(), chinese.widths(), "different tables");
    assert_eq!(english.items(), chinese.items(), "different lists");
    // Inline code and link targets are the same in every language.
    assert_eq!(english.inline_code(), chinese.inline_code());
    let links = |page: &Page| page.links().into_iter().filter(|link| !link.contains("monitoring-guide")).collect();
    let (one, other): (BTreeSet<_>, BTreeSet<_>) = (links(&english), links(&chinese));
    assert_eq!(one, other);
}

#[test]
fn both_languages_of_the_readme_say_the_same() {
    let names = ["README.md", "README.zh-CN.md"];
    let [english, chinese] = names.map(|name| Page::read(&format!("../{name}")));
    assert!(english.links().iter().any(|link| link == names[1]), "the English page does not link to the Chinese one");
    assert!(chinese.links().iter().any(|link| link == names[0]), "the Chinese page does not link to the English one");
    // A page and its translation count as one.
    let links = |page: &Page| -> BTreeSet<_> {
        page.links().iter().map(|link| link.replace(".zh-CN.md", ".md").replace(".zh.md", ".md")).collect()
    };
    assert_eq!(links(&english), links(&chinese), "different links");
    assert_eq!(english.blocks(), chinese.blocks(), "different blocks of code");
    assert!(english.levels().len() > 5, "{:?}", english.levels());
    assert_eq!(english.levels(), chinese.levels(), "different headings");
    assert_eq!(english.widths(), chinese.widths(), "different tables");
    assert!(english.items() > 20, "{}", english.items());
    assert_eq!(english.items(), chinese.items(), "different lists");
    assert_eq!(english.inline_code(), chinese.inline_code(), "different inline code");
}

#[test]
fn what_the_pages_link_to_is_there() {
    let mut pages = 0;
    for folder in [".", "guides", "runbooks"] {
        for entry in std::fs::read_dir(Path::new(DOCS).join(folder)).unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            if name.ends_with(".md") {
                pages += 1;
                check_links(folder, &name);
            }
        }
    }
    assert!(pages > 40, "{pages}");
}

/// The files and the headings that a page links to exist. Addresses of the web are not checked.
fn check_links(folder: &str, name: &str) {
    for link in Page::read(&format!("{folder}/{name}")).links().iter().filter(|link| !link.starts_with("http")) {
        let (file, anchor) = link.split_once('#').unwrap_or((link, ""));
        let target = format!("{folder}/{}", if file.is_empty() { name } else { file });
        assert!(Path::new(DOCS).join(&target).exists(), "{folder}/{name} links to {link}, which does not exist");
        if !anchor.is_empty() {
            let anchors = Page::read(&target).anchors();
            assert!(anchors.contains(anchor), "{folder}/{name} links to {link}; there are {anchors:?}");
        }
    }
}

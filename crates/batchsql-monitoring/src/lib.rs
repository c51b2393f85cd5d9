//! Checks of what BatchSQL ships for Prometheus and Grafana: every query in `monitoring/` and `docs/` against the
//! metric catalogue, and every panel of the dashboard against a Prometheus that scrapes.

// Requests the metrics repeatedly, one request at a time, and reports the state. Knows HTTP; not what metrics mean.
(function (live) {
  "use strict";
  // Milliseconds between two requests, visible and hidden; and the timeout of one request.
  const INTERVAL = 1000, INTERVAL_HIDDEN = 5000, TIMEOUT = 10000;
  // After a failure the next request waits longer, up to this.
  const LONGEST_WAIT = 5000;
  // The part of the browser's time that the page may use.
  const SHARE = 0.25;

  // Relative to the page, which may be behind a proxy under any path, with or without a trailing slash.
  function beside(name) {
    const base = new URL(location.href);
    if (!base.pathname.endsWith("/")) base.pathname += "/";
    return new URL(name, base).href;
  }

  class Poller {
    // `take(text, milliseconds of the server's clock)` gets every response, `tell(state)` every change:
    // { kind: "live" | "lost" | "token" | "password" | "denied" | "defect", reason }.
    constructor(take, tell) {
      this.take = take;
      this.tell = tell;
      // The Authorization header of each request.
      this.credentials = "";
      this.failures = 0;
      this.stopped = false;
      this.wake = () => {};
      document.addEventListener("visibilitychange", () => { if (!document.hidden) this.wake(); });
      window.addEventListener("online", () => this.wake());
    }

    async run() {
      for (;;) {
        const begun = performance.now();
        // After an error in this page, it continues and shows the error.
        await this.ask().catch((error) => this.defect(error)).catch(() => {});
        await this.rest(begun);
      }
    }

    tryToken(token) {
      // Other characters are not allowed in a header. The position does not reveal the rest.
      const position = [...token].findIndex((sign) => !/[\x21-\x7e]/.test(sign)) + 1;
      if (position > 0) {
        this.tell({ kind: "token", reason: "This cannot be the token: character " + position + " is no letter, digit or sign of ASCII. Copy it once more." });
      } else {
        this.again("Bearer " + token);
      }
    }

    tryPassword(user, password) {
      this.again("Basic " + btoa(String.fromCharCode(...new TextEncoder().encode(user + ":" + password))));
    }

    // With other credentials, or on request of the user.
    again(credentials = "") {
      this.credentials = credentials;
      this.stopped = false;
      this.failures = 0;
      this.wake();
    }

    async rest(begun) {
      const pause = document.hidden ? INTERVAL_HIDDEN : INTERVAL;
      const patience = this.failures > 0 ? Math.min(LONGEST_WAIT, pause * 2 ** (this.failures - 1)) : pause;
      const left = Math.max(patience - (performance.now() - begun), (this.cost || 0) * (1 / SHARE - 1), 20);
      await new Promise((resolve) => {
        this.wake = resolve;
        // After a refusal the user must enter credentials first.
        if (!this.stopped) setTimeout(resolve, left);
      });
    }

    async ask() {
      const limit = new AbortController();
      const timer = setTimeout(() => limit.abort(), TIMEOUT);
      let answer, text;
      try {
        // With the first header the exporter identifies this page, which has its own form for a password.
        const headers = { "X-Requested-With": "BatchSQL" };
        if (this.credentials !== "") headers.Authorization = this.credentials;
        answer = await fetch(beside("metrics"), { headers, cache: "no-store", credentials: "same-origin", signal: limit.signal });
        text = await answer.text();
      } catch (error) {
        return this.lost(limit.signal.aborted ? "No response within " + TIMEOUT / 1000 + " seconds." : "The process has ended, or cannot be reached from here.");
      } finally {
        clearTimeout(timer);
      }
      if (answer.status === 401) return this.refused(answer.headers.get("www-authenticate") || "");
      if (!answer.ok) return this.lost("The exporter responds with status " + answer.status + ".");
      if (!(answer.headers.get("content-type") || "").startsWith("text/plain")) return this.lost("The server is not a BatchSQL exporter.");
      this.failures = 0;
      const begun = performance.now();
      try {
        this.take(text, Date.parse(answer.headers.get("date") || ""));
      } finally {
        this.cost = performance.now() - begun;
      }
      return this.tell({ kind: "live", reason: "" });
    }

    lost(reason) {
      this.failures += 1;
      this.tell({ kind: "lost", reason });
    }

    refused(challenge) {
      this.stopped = true;
      const kind = /^bearer/i.test(challenge) ? "token" : /^(x-)?basic/i.test(challenge) ? "password" : "denied";
      const had = this.credentials !== "";
      this.credentials = "";
      const what = { token: "this token", password: "this user and password" }[kind];
      this.tell({ kind, reason: had && what ? "The exporter refused " + what + "." : "" });
    }

    defect(error) {
      console.error(error);
      this.tell({ kind: "defect", reason: String(error) });
    }
  }

  live.poll = { Poller, beside };
})(window.batchsqlLive = window.batchsqlLive || {});

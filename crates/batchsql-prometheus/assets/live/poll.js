// Asks for the metrics again and again, one request at a time, and says how that goes. Knows HTTP; not what metrics mean.
(function (live) {
  "use strict";
  // Milliseconds between two requests, also where nobody looks; and for one of them at most.
  const INTERVAL = 1000, INTERVAL_HIDDEN = 5000, TIMEOUT = 10000;
  // After a failure the next request waits longer, up to this.
  const LONGEST_WAIT = 5000;
  // The page may take this part of the time of a browser that has other things to do, too.
  const SHARE = 0.25;

  // Relative to the page, which may stand behind a proxy under any path, with or without a slash at its end.
  function beside(name) {
    const base = new URL(location.href);
    if (!base.pathname.endsWith("/")) base.pathname += "/";
    return new URL(name, base).href;
  }

  class Poller {
    // `take(text, milliseconds of the server's clock)` gets every answer, `tell(state)` every change:
    // { kind: "live" | "lost" | "token" | "denied", reason }.
    constructor(take, tell) {
      this.take = take;
      this.tell = tell;
      this.token = "";
      this.failures = 0;
      this.stopped = false;
      this.wake = () => {};
      document.addEventListener("visibilitychange", () => { if (!document.hidden) this.wake(); });
      window.addEventListener("online", () => this.wake());
    }

    async run() {
      for (;;) {
        const begun = performance.now();
        await this.ask();
        await this.rest(begun);
      }
    }

    // With another token, or because the person asks for it.
    again(token) {
      if (token !== undefined) this.token = token;
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
        // Someone who was refused is asked first; the browser would ask for a password each second.
        if (!this.stopped) setTimeout(resolve, left);
      });
    }

    async ask() {
      const limit = new AbortController();
      const timer = setTimeout(() => limit.abort(), TIMEOUT);
      try {
        const headers = this.token === "" ? {} : { Authorization: "Bearer " + this.token };
        const answer = await fetch(beside("metrics"), { headers, cache: "no-store", credentials: "same-origin", signal: limit.signal });
        const text = await answer.text();
        if (answer.status === 401) return this.refused(answer.headers.get("www-authenticate") || "");
        if (!answer.ok) return this.lost("The exporter answers with status " + answer.status + ".");
        if (!(answer.headers.get("content-type") || "").startsWith("text/plain")) return this.lost("What answers there is no exporter.");
        const begun = performance.now();
        this.failures = 0;
        this.tell({ kind: "live", reason: "" });
        this.take(text, Date.parse(answer.headers.get("date") || ""));
        this.cost = performance.now() - begun;
        return undefined;
      } catch (error) {
        if (error instanceof TypeError || error.name === "AbortError") {
          return this.lost(limit.signal.aborted ? "No answer within " + TIMEOUT / 1000 + " seconds." : "The process has ended, or cannot be reached from here.");
        }
        throw error;
      } finally {
        clearTimeout(timer);
      }
    }

    lost(reason) {
      this.failures += 1;
      this.tell({ kind: "lost", reason });
    }

    refused(challenge) {
      this.stopped = true;
      const wantsToken = /^bearer/i.test(challenge);
      const had = this.token !== "";
      this.token = "";
      this.tell({ kind: wantsToken ? "token" : "denied", reason: wantsToken && had ? "The exporter refused this token." : "" });
    }
  }

  live.poll = { Poller, beside };
})(window.batchsqlLive = window.batchsqlLive || {});

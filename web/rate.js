// The line below an answer: how many tokens it has, how fast they came, and why it ended.

/** Tokens per second: pieces while they arrive, the server's own count at the end. */
export class Rate {
  remark = "";
  #start = null;
  #end = null;
  #tokens = 0;

  count() {
    this.#end = performance.now();
    this.#start ??= this.#end;
    this.#tokens += 1;
  }

  settle(tokens) {
    this.#tokens = tokens;
  }

  text() {
    if (this.#tokens === 0) return "";
    const parts = [`${this.#tokens} token${this.#tokens === 1 ? "" : "s"}`];
    const seconds = (this.#end - this.#start) / 1000;
    if (this.#tokens > 1 && seconds > 0) parts.push(`${((this.#tokens - 1) / seconds).toFixed(1)} tokens/s`);
    if (this.remark) parts.push(this.remark);
    return parts.join(", ");
  }
}

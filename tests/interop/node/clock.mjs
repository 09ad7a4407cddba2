// A clock that stands still where a test says, so that two runs leave the same times behind.
// It must be in place before a client library is loaded.

const RealDate = Date;
let frozenMs = null;

export function setClock(ms) {
  frozenMs = ms;
}

export function install() {
  class TestDate extends RealDate {
    constructor(...args) {
      if (args.length === 0 && frozenMs !== null) {
        super(frozenMs);
      } else {
        super(...args);
      }
    }

    static now() {
      return frozenMs ?? RealDate.now();
    }
  }
  globalThis.Date = TestDate;
}

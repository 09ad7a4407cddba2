// A clock that stands still where a test says, so that two runs leave the same times behind; or
// one that runs, but is wrong. It must be in place before a client library is loaded.

const RealDate = Date;
let frozenMs = null;
let offMs = 0;

export function setClock(ms) {
  frozenMs = ms;
}

export function shiftClock(ms) {
  offMs = ms;
}

export function install() {
  class TestDate extends RealDate {
    constructor(...args) {
      if (args.length === 0) {
        super(TestDate.now());
      } else {
        super(...args);
      }
    }

    static now() {
      return frozenMs ?? RealDate.now() + offMs;
    }
  }
  globalThis.Date = TestDate;
}

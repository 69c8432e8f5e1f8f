// One line for every check: `ok NAME` or `FAIL NAME: reason`. tests/run counts them.


/** Runs one check: it passes when `body` resolves. */
export async function check(name, body) {
  try {
    await body();
    console.log(`ok ${name}`);
  } catch (error) {
    const reason = `${error?.name ?? 'Error'}: ${error?.message ?? error}`;
    console.log(`FAIL ${name}: ${reason.replace(/\s+/g, ' ').slice(0, 600)}`);
  }
}

export const note = (text) => console.log(`   ${text}`);

/** The exit code says whether the driver itself came to its end; failures are in its lines. */
export const done = () => process.exit(0);

export const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

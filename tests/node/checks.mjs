// What the client scripts share: where everything is, how a package is loaded, and a count of what was checked.

import { strict as assert } from 'node:assert';
import { webcrypto } from 'node:crypto';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';

globalThis.crypto ??= webcrypto; // Node.js 18, as in Debian 12, has it under this name only

/** The authority's issuer, which is also where the API is, and an application credential. */
export const { ISSUER, CLIENT_ID, CLIENT_SECRET, ALGORITHM } = process.env;

/** Loads a file of an installed package. */
export const load = (file) => import(pathToFileURL(join(process.env.NODE_MODULES, file)));

let done = 0;

/** Two values are the same. */
export function same(found, wanted, what) {
  assert.deepEqual(found, wanted, what);
  done += 1;
}

/** Something holds. */
export function holds(fact, what) {
  assert.ok(fact, what);
  done += 1;
}

/** A promise is rejected; the error is returned. */
export async function fails(promise, what) {
  const error = await promise.then(() => undefined, (reason) => reason);
  holds(error instanceof Error, what);
  return error;
}

/** The last line that a script prints. */
export const finish = () => console.log(`${done} checks`);

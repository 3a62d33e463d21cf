// The console in a real Chromium. SCENARIO says which story is played; each prints how many checks it made.

import { mkdirSync } from 'node:fs';
import { join } from 'node:path';

import { ISSUER, finish, holds, load, same } from './checks.mjs';

const { CONSOLE, ADMIN_TOKEN, SCENARIO, SHOTS } = process.env;
const { chromium } = await load('playwright-core/index.mjs');
const { default: Axe } = await load('@axe-core/playwright/dist/index.mjs');
const PASSWORD = 'correct horse battery staple';
const HOSTILE = '<script>document.title="owned"</script>"\'&amp;';

const browser = await chromium.launch({
  executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium',
  args: ['--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking',
    '--disable-component-update', '--disable-sync'],
});

/** What went wrong in any page, by its own account: script errors, violations of the policy. */
const complaints = [];

/** A browser of somebody's own, with a page. */
async function visitor(options = {}) {
  const context = await browser.newContext({ ignoreHTTPSErrors: true, ...options });
  const page = await context.newPage();
  page.setDefaultTimeout(60_000);
  page.on('pageerror', (error) => complaints.push(`${page.url()}: ${error.message}`));
  page.on('console', (line) => {
    // The status of a refused form is no fault of the page.
    if (line.type() === 'error' && !line.text().includes('status of 4')) complaints.push(`${page.url()}: ${line.text()}`);
  });
  page.on('dialog', (dialog) => complaints.push(`${page.url()}: a dialog: ${dialog.message()}`));
  return page;
}

async function signIn(page, user, password = PASSWORD) {
  await page.goto(`${CONSOLE}/console/`);
  await page.fill('#f-user', user);
  await page.fill('#f-password', password);
  await page.click('form:has(#f-user) button');
}

async function operate(page) {
  await page.goto(`${CONSOLE}/console/`);
  await page.fill('#f-token', ADMIN_TOKEN);
  await page.click('form:has(#f-token) button');
}

const heading = (page) => page.textContent('h1');

/** Makes a credential by the form; what the page showed. */
async function credential(page, name, { roles = [], scopes = [], tenant } = {}) {
  await page.goto(`${CONSOLE}/console/credentials`);
  await page.click('a:has-text("New credential")');
  await page.fill('#f-name', name);
  for (const role of roles) await page.check(`label:text-is(${JSON.stringify(role)})`);
  for (const scope of scopes) await page.check(`label:text-is(${JSON.stringify(scope)})`);
  if (tenant) await page.fill('#f-tenant', tenant);
  await page.click('button:has-text("Generate")');
  same(await heading(page), 'Your new secret', 'generated');
  return { id: await page.textContent('#client-id'), secret: await page.textContent('#client-secret') };
}

/** Asks for a token as an application does. */
async function ask({ id, secret }, more = {}) {
  const answer = await fetch(`${ISSUER}/oauth/token`, {
    method: 'POST',
    headers: { authorization: `Basic ${btoa(`${id}:${secret}`)}` },
    body: new URLSearchParams({ grant_type: 'client_credentials', ...more }),
  });
  return { status: answer.status, ...await answer.json() };
}

const call = async (path, token) =>
  (await fetch(`${ISSUER}${path}`, { headers: { authorization: `Bearer ${token}` } })).status;

let shots = 0;
async function shoot(page, name) {
  if (!SHOTS) return;
  mkdirSync(SHOTS, { recursive: true });
  await page.screenshot({ path: join(SHOTS, `${SCENARIO}-${String(shots += 1).padStart(2, '0')}-${name}.png`), fullPage: true });
}

/** No violation of WCAG 2.2 AA, one heading, a title, nothing wider than the window. */
async function isSound(page, what) {
  const { violations } = await new Axe({ page }).withTags(['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa']).analyze();
  same(violations.map(({ id, nodes }) => [id, nodes.map(({ html }) => html)]), [], `${what}: accessibility`);
  same(await page.locator('h1').count(), 1, `${what}: one heading`);
  holds((await page.title()).endsWith(' · Portcullis'), `${what}: title`);
  const [scroll, width] = await page.evaluate(() => [document.documentElement.scrollWidth, innerWidth]);
  holds(scroll <= width, `${what}: ${scroll} pixels do not fit into ${width}`);
}

/** Every page of the menu, and those behind the first entry of each list. */
async function everywhere(page, what) {
  const tabs = await page.locator('header nav a').evaluateAll((all) => all.map((a) => [a.getAttribute('href'), a.textContent]));
  for (const [path, name] of tabs) {
    await page.goto(CONSOLE + path);
    same(await page.getAttribute(`header nav a[href="${path}"]`, 'aria-current'), 'page', `${what}: ${name} is marked`);
    await isSound(page, `${what}: ${name}`);
    await shoot(page, `${what}-${path.split('/').pop()}`);
  }
  return tabs.map(([path]) => path);
}

const scenarios = {
  async robot() {
    const ada = await visitor();
    await signIn(ada, 'ada');
    same(await heading(ada), 'Application credentials');
    holds((await ada.textContent('main')).includes('No credentials yet'), 'what to do first');
    const robot = await credential(ada, 'Nightly export', { roles: ['case-reader'] });
    holds((await ada.textContent('main')).includes('It is shown only once'), 'said plainly');
    holds((await ada.textContent('#curl')).includes(`--user '${robot.id}:${robot.secret}'`), 'a line to try');
    const { access_token: token } = await ask(robot);
    same([await call('/cases/7', token), await call('/cases/7', undefined)], [200, 401], 'the robot reads');
    await ada.click('a:has-text("I have copied it")');
    same(await ada.textContent('dl dd:nth-of-type(1)'), robot.id, 'the page of the credential');
    holds(!(await ada.content()).includes(robot.secret), 'the secret is not shown again');

    const operator = await visitor();
    await operate(operator);
    await operator.click('header nav a:has-text("Users")');
    await operator.click('table a:has-text("ada")');
    await operator.fill('#f-roles', 'case-writer');
    await operator.click('button:has-text("Change roles")');
    const warning = await operator.textContent('main');
    for (const part of ['1 token in use will end.', 'Nightly export', 'case-reader']) holds(warning.includes(part), part);
    same(await call('/cases/7', token), 200, 'nothing has changed yet');
    await operator.click('button:has-text("Change roles")');
    same(await heading(operator), 'ada');
    same(await call('/cases/7', token), 401, 'the token ended with the role');
    holds((await ask(robot)).error === 'unauthorized_client', 'no role is left for the robot');
    await ada.reload();
    holds((await ada.textContent('main')).includes('has lost one of its roles'), 'the credential says so');
    same(await ada.locator('.label.lost').textContent(), 'case-reader (lost)');
  },

  async scopes() {
    const operator = await visitor();
    await operate(operator);
    await operator.goto(`${CONSOLE}/console/credentials/new`);
    same(await operator.locator('#f-name').count(), 0, 'an operator names the owner first');
    await operator.goto(`${CONSOLE}/console/credentials/new?owner=ada`);
    await operator.fill('#f-name', 'Deal desk');
    await operator.check('label:text-is("read:deals")');
    await operator.fill('#f-tenant', 'acme');
    await operator.click('button:has-text("Generate")');
    const made = { id: await operator.textContent('#client-id'), secret: await operator.textContent('#client-secret') };
    holds((await operator.textContent('#curl')).includes("'registration=acme'"), 'the line names the tenant');
    same((await ask(made, { scope: 'read:deals' })).error, 'invalid_request', 'without the tenant');
    same((await ask(made, { registration: 'other', scope: 'read:deals' })).error, 'invalid_client', 'another tenant');
    same((await ask(made, { registration: 'acme', scope: 'read:users' })).error, 'invalid_scope');
    const { access_token: token } = await ask(made, { registration: 'acme', scope: 'read:deals' });
    same([await call('/deals/7', token), await call('/users/7', token)], [200, 403], 'each scope its own endpoints');
  },

  async upkeep() {
    const ada = await visitor();
    await signIn(ada, 'ada');
    const robot = await credential(ada, 'Robot', { roles: ['case-reader'] });
    const own = `${CONSOLE}/console/credentials/${robot.id}`;
    // The page with the secret, loaded again: neither the secret nor another credential.
    await ada.reload();
    same(await heading(ada), 'This form was already sent');
    holds(!(await ada.content()).includes(robot.secret), 'not shown a second time');
    await ada.goto(`${CONSOLE}/console/credentials`);
    same(await ada.locator('tbody tr').count(), 1, 'made once');

    await ada.goto(own);
    await ada.fill('#f-name', '');
    await ada.evaluate(() => document.querySelector('#f-name').removeAttribute('required'));
    await ada.fill('input[type=date]', '2099-12-31');
    same(await ada.isChecked('#f-lifetime-date'), true, 'the date that is picked is meant');
    await ada.click('button:has-text("Save")');
    same(await ada.getAttribute('#f-name', 'aria-invalid'), 'true', 'the problem is at its field');
    same(await ada.inputValue('input[type=date]'), '2099-12-31', 'what was typed is still there');
    await ada.fill('#f-name', 'Robot of the night');
    await ada.click('button:has-text("Save")');
    same(await heading(ada), 'Robot of the night');
    holds((await ada.textContent('dl')).includes('2099-12-31 23:59 UTC'), 'to the end of the day');

    await ada.check('#f-overlap-1h');
    await ada.click('button:has-text("Create a new secret")');
    const second = { id: robot.id, secret: await ada.textContent('#client-secret') };
    const first = await ask(robot);
    same([first.status, (await ask(second)).status], [200, 200], 'both work for the overlap');
    await ada.goto(own);
    holds((await ada.textContent('dl')).includes('Old secret'), 'the page says how long');
    await ada.check('#f-end-tokens');
    await ada.click('button:has-text("Create a new secret")');
    const third = { id: robot.id, secret: await ada.textContent('#client-secret') };
    same([(await ask(robot)).status, (await ask(second)).status], [401, 401], 'the old ones stopped');
    const { access_token: token } = await ask(third);
    same([await call('/cases/7', first.access_token), await call('/cases/7', token)], [401, 200], 'its tokens ended');

    await ada.goto(own);
    await ada.click('a:has-text("Delete")');
    holds((await ada.textContent('main')).includes('1 token in use will end.'), 'what ends is said');
    await ada.click('a:has-text("Keep it")');
    same((await ask(third)).status, 200, 'kept');
    await ada.click('a:has-text("Delete")');
    await ada.click('button:has-text("Delete")');
    same([await heading(ada), await call('/cases/7', token), (await ask(third)).status], ['Application credentials', 401, 401]);
    await ada.goto(own);
    same(await heading(ada), 'Page not found');
  },

  async pages() {
    let paths;
    for (const [what, options] of [
      ['light', { colorScheme: 'light', viewport: { width: 1200, height: 800 } }],
      ['dark', { colorScheme: 'dark', viewport: { width: 1200, height: 800 } }],
      ['phone', { colorScheme: 'light', viewport: { width: 390, height: 800 }, isMobile: true, hasTouch: true }],
    ]) {
      const page = await visitor(options);
      await page.goto(`${CONSOLE}/console/sign-in`);
      await isSound(page, `${what}: sign-in`);
      await shoot(page, `${what}-sign-in`);
      await operate(page);
      paths = await everywhere(page, what);
      for (const path of [...process.env.MORE_PATHS.split(' '), '/console/no-such-page']) {
        await page.goto(CONSOLE + path);
        await isSound(page, `${what}: ${path}`);
        await shoot(page, `${what}-${path.split('/').slice(2).join('-').replace(/[^a-z-]/g, '').slice(0, 30)}`);
      }
      await page.context().close();
    }
    holds(paths.length >= 2, 'there is a menu');
  },

  async keyboard() {
    const page = await visitor();
    const until = async (selector) => {
      for (let pressed = 0; pressed < 60; pressed += 1) {
        await page.keyboard.press('Tab');
        const [there, seen] = await page.evaluate((wanted) => {
          const style = getComputedStyle(document.activeElement);
          return [document.activeElement.matches(wanted), style.outlineStyle !== 'none' || style.outlineWidth !== '0px'];
        }, selector);
        if (there) { holds(seen, `the focus on ${selector} is seen`); return; }
      }
      throw new Error(`the keyboard does not reach ${selector}`);
    };
    await page.goto(`${CONSOLE}/console/`);
    await until('#f-user'); await page.keyboard.type('ada');
    await until('#f-password'); await page.keyboard.type(PASSWORD);
    await page.keyboard.press('Enter');
    await page.waitForURL('**/console/credentials');
    await until('.skip'); await page.keyboard.press('Enter');
    await until('a.button'); await page.keyboard.press('Enter');
    await page.waitForURL('**/console/credentials/new');
    await until('#f-name'); await page.keyboard.type('By keyboard');
    await until('[name=role]'); await page.keyboard.press('Space');
    await until('main button[type=submit]'); await page.keyboard.press('Enter');
    await page.waitForSelector('#client-secret');
    same(await heading(page), 'Your new secret');
    await until('button.copy');
  },

  async plain() {
    const page = await visitor({ javaScriptEnabled: false });
    await signIn(page, 'ada');
    const robot = await credential(page, 'Without scripts', { roles: ['case-reader'] });
    same((await ask(robot)).status, 200);
    same(await page.locator('button.copy:visible').count(), 0, 'no button that does nothing');
    await page.goto(`${CONSOLE}/console/credentials/${robot.id}`);
    await page.fill('#f-name', 'Still without');
    await page.click('button:has-text("Save")');
    same(await heading(page), 'Still without');
    await page.click('a:has-text("Delete")');
    await page.click('button:has-text("Delete")');
    same((await ask(robot)).status, 401);
    await page.click('button:has-text("Sign out")');
    await page.goto(`${CONSOLE}/console/credentials`);
    same(await heading(page), 'Sign in');
  },

  async two() {
    const [ada, bob] = await Promise.all([visitor(), visitor()]);
    await Promise.all([signIn(ada, 'ada'), signIn(bob, 'bob')]);
    const [of_ada, of_bob] = await Promise.all([credential(ada, 'Of Ada', { roles: ['case-reader'] }), credential(bob, 'Of Bob', { roles: ['case-writer'] })]);
    for (const [page, own, other] of [[ada, of_ada, of_bob], [bob, of_bob, of_ada]]) {
      await page.goto(`${CONSOLE}/console/credentials`);
      same(await page.locator('tbody tr').count(), 1, 'their own only');
      holds((await page.textContent('tbody')).includes(own.id), 'their own');
      for (const path of ['', '/delete']) {
        await page.goto(`${CONSOLE}/console/credentials/${other.id}${path}`);
        same(await heading(page), 'Page not found', 'what is not theirs does not exist');
      }
      await page.goto(`${CONSOLE}/console/credentials?owner=${page === ada ? 'bob' : 'ada'}`);
      holds(!(await page.textContent('main')).includes(other.id), 'nor by asking for it');
      await page.goto(`${CONSOLE}/console/users`);
      same(await heading(page), 'You do not have access to this page');
      same(await page.locator('a[href="/console/users"]').count(), 0, 'nor is it in the menu');
    }
  },

  async hostile() {
    const ada = await visitor();
    await signIn(ada, 'ada');
    const robot = await credential(ada, HOSTILE, { roles: [HOSTILE], scopes: ['read:deals'] });
    for (const path of ['credentials', `credentials/${robot.id}`, `credentials/${robot.id}/delete`, 'credentials/new']) {
      await ada.goto(`${CONSOLE}/console/${path}`);
      holds((await ada.title()) !== 'owned' && (await ada.textContent('main')).includes(HOSTILE), `${path}: shown as text`);
    }
    const operator = await visitor();
    await operate(operator);
    for (const path of ['credentials', 'users', 'users/ada', 'users/ada/delete']) {
      await operator.goto(`${CONSOLE}/console/${path}`);
      holds((await operator.title()) !== 'owned', path);
    }
    // Forms that the browser did not send from a page of this visit change nothing.
    const csrf = await (await ada.goto(`${CONSOLE}/console/credentials/${robot.id}`), ada.inputValue('form[action$="/edit"] [name=csrf]'));
    const foreign = await (await operator.goto(`${CONSOLE}/console/users/ada`), operator.inputValue('form[action$="/roles"] [name=csrf]'));
    const post = async (path, form, headers = {}) => {
      const answer = await ada.context().request.post(`${CONSOLE}/console/${path}`, { form, headers, maxRedirects: 0 });
      return [answer.status(), await answer.text()];
    };
    const edit = { name: 'Changed', lifetime: 'kept' };
    for (const [form, headers] of [
      [edit, {}], [{ ...edit, csrf: '' }, {}], [{ ...edit, csrf: `${csrf}x` }, {}], [{ ...edit, csrf: foreign }, {}],
      [{ ...edit, csrf }, { origin: 'https://evil.example' }], [{ ...edit, csrf }, { origin: 'null' }],
      [{ ...edit, csrf }, { 'sec-fetch-site': 'cross-site' }],
    ]) {
      const [status, text] = await post(`credentials/${robot.id}/edit`, form, headers);
      same(status, 403, JSON.stringify([form, headers]));
      holds(text.includes('No changes were made'), 'said plainly');
    }
    same((await post('users/ada/roles', { csrf, roles: 'admin', confirmed: 'yes', version: '1' }))[0], 403, 'a missing permission');
    await ada.goto(`${CONSOLE}/console/credentials/${robot.id}`);
    same(await heading(ada), HOSTILE, 'nothing was changed');
    same((await post(`credentials/${robot.id}/edit`, { ...edit, csrf }, { origin: CONSOLE }))[0], 303, 'the same, as it should be');
    // A visit that has ended.
    await ada.click('button:has-text("Sign out")');
    const [status, text] = await post(`credentials/${robot.id}/delete`, { csrf }, { origin: CONSOLE });
    same(status, 401);
    holds(text.includes('No changes were made'), 'said plainly');
    same((await ask(robot)).status, 200, 'and true');
  },

  async secrets() {
    const page = await visitor();
    const seen = [];
    page.on('request', (request) => seen.push(request.url()));
    await signIn(page, 'ada');
    const robot = await credential(page, 'Quiet', { roles: ['case-reader'] });
    await page.click('a:has-text("I have copied it")');
    // The browser asks whether the form is to be sent again: without a copy of the page it has nothing to show.
    await page.goBack().catch(() => {});
    const shown = await page.evaluate(() => document.documentElement.outerHTML).catch(() => '');
    holds(!shown.includes(robot.secret), 'going back does not show it again');
    // What the browser still does about going back belongs to that page.
    const context = page.context();
    const fresh = await context.newPage();
    await page.close();
    await fresh.goto(`${CONSOLE}/console/credentials`);
    for (const secret of [PASSWORD, robot.secret]) {
      holds(seen.every((url) => !decodeURIComponent(url).includes(secret)), 'in no address');
    }
    for (const { name, httpOnly, sameSite } of await context.cookies()) {
      same([httpOnly, sameSite], [true, 'Strict'], name);
    }
    same(await fresh.evaluate(() => [document.cookie, localStorage.length, sessionStorage.length]), ['', 0, 0]);
    console.log(`SECRET ${robot.secret}`);
  },
};

await scenarios[SCENARIO]();
same(complaints, [], 'nothing to complain about');
await browser.close();
finish();

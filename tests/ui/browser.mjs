// Opens the pages in Chromium. Arguments: the address of the agent, its process id, the path of Chromium, a directory
// for screenshots or nothing, and the address of an aggregator of the agent and of a node that does not answer. The agent is the demo: one target is well, one is an immutable bucket, one is offline.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { createServer } from "node:http";
import { createRequire } from "node:module";
import { chromium } from "playwright-core";

const [address, pid, executablePath, screenshots, fleet] = process.argv.slice(2);
const axe = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");

// Without a network of its own: no services in the background, no updates.
const args = [
  "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
  "--disable-component-update", "--disable-sync",
];

// Widths of a small phone at 400 % (WCAG 2.2, 1.4.10) and of a laptop, in pixels.
const WIDTHS = [320, 1280];
const SCHEMES = ["light", "dark"];

// More targets than one page shows.
const MANY = 130;

const SCRIPT = "<script>window.hostile = true</script>";
const REVERSED = "\u202e";

let passed = 0;

async function test(name, run) {
  try {
    await run();
  } catch (error) {
    error.message = `${name}: ${error.message}`;
    throw error;
  }
  console.log(`ok ${(passed += 1)} ${name}`);
}

async function api(method, path, body) {
  const answer = await fetch(address + path, {
    method,
    headers: body && { "content-type": "application/json" },
    body: body && JSON.stringify(body),
  });
  assert.ok(answer.ok, `${method} ${path}: ${answer.status}`);
  return answer.json();
}

async function create(target) {
  const body = await api("POST", "/backup_targets", { backup_target: target });
  return body.backup_targets.id;
}

// An S3 service that refuses everything, with a hostile error code, which the agent's message quotes.
const refusing = createServer((request, response) => {
  const code = SCRIPT.replaceAll("<", "&lt;") + REVERSED;
  response.writeHead(400, { "content-type": "application/xml" });
  response.end(`<?xml version="1.0"?><Error><Code>${code}</Code><Message>no</Message></Error>`);
});
await new Promise((resolve) => refusing.listen(0, "127.0.0.1", resolve));

const scripted = await create({ type: "nfs", filesystem_export: `127.0.0.1:/${SCRIPT.replace("/", "|")}` });
const refused = await create({
  type: "s3", s3_endpoint_url: `http://127.0.0.1:${refusing.address().port}`, s3_bucket: "refused",
});
for (const id of [scripted, refused]) {
  await api("POST", `/backup_targets/${id}/check`);
}
const { backup_targets: targets } = await api("GET", "/backup_targets");
const ids = Object.fromEntries(targets.map((target) => [target.filesystem_export, target.id]));
const pages = {
  overview: "/ui",
  offline: `/ui/targets/${ids["127.0.0.1:/not-exported"]}`,
  available: `/ui/targets/${ids["127.0.0.1:/backups"]}`,
  bucket: `/ui/targets/${targets.find((target) => target.type === "s3").id}`,
  refused: `/ui/targets/${refused}`,
  scripted: `/ui/targets/${scripted}`,
  nothing: "/ui?q=nothing",
  wrong: "/ui?status=dead",
  missing: "/ui/targets/none",
  fleet: `${fleet}/ui/fleet`,
  fleetTarget: `${fleet}/ui/fleet/targets/${ids["127.0.0.1:/not-exported"]}`,
  fleetWrong: `${fleet}/ui/fleet?status=dead`,
};

const urlOf = (path) => (path.startsWith("http") ? path : address + path);

// The aggregator knows the hostile targets after its next poll.
for (let known = false; !known; ) {
  const answer = await fetch(`${fleet}/backup_targets/${refused}`);
  known = answer.ok;
  await new Promise((resolve) => setTimeout(resolve, known ? 0 : 200));
}

const browser = await chromium.launch({ executablePath, args });

// Opens a page, and holds that it is whole: one request, no error in the console.
async function open(path, options = {}) {
  const context = await browser.newContext({ viewport: { width: 1280, height: 800 }, ...options });
  const page = await context.newPage();
  const requests = [];
  const problems = [];
  page.on("request", (request) => requests.push(request.url()));
  page.on("console", (message) => problems.push(message.text()));
  page.on("pageerror", (error) => problems.push(String(error)));
  await page.goto(urlOf(path), { waitUntil: "load" });
  const others = requests.filter((url) => url !== urlOf(path) && !url.startsWith("data:"));
  assert.deepEqual(others, [], "no other request");
  const unexpected = problems.filter((text) => !/status of 40[04]/.test(text));
  assert.deepEqual(unexpected, [], "nothing in the console");
  return page;
}

async function shoot(page, name) {
  if (screenshots) await page.screenshot({ path: `${screenshots}/${name}.png`, fullPage: true });
}

for (const [name, path] of Object.entries(pages)) {
  for (const colorScheme of SCHEMES) {
    for (const width of WIDTHS) {
      await test(`${name} at ${width} px, ${colorScheme}: no violation, no horizontal scroll`, async () => {
        const page = await open(path, { colorScheme, viewport: { width, height: 800 } });
        for (const details of await page.locator("summary").all()) await details.click();
        await shoot(page, `${name}-${width}-${colorScheme}`);
        const [needed, given] = await page.evaluate(() => {
          const root = document.documentElement;
          return [root.scrollWidth, root.clientWidth];
        });
        assert.ok(needed <= given, `${needed} px in ${given} px`);
        await page.evaluate(axe);
        const { violations } = await page.evaluate(() => globalThis.axe.run());
        const found = violations.map(({ id, nodes }) => `${id}: ${nodes.map(({ html }) => html).join(" ")}`);
        assert.deepEqual(found, []);
        await page.context().close();
      });
    }
  }
}

await test("texts of others run no script and turn no text around", async () => {
  const search = `/ui?q=${encodeURIComponent(SCRIPT)}`;
  for (const path of [pages.overview, pages.refused, pages.scripted, search, pages.fleet]) {
    const page = await open(path);
    assert.equal(await page.evaluate(() => globalThis.hostile), undefined, path);
    assert.equal(await page.locator("script").count(), 0, path);
    assert.ok((await page.content()).includes("&lt;script"), path);
    assert.ok(!(await page.content()).includes(REVERSED), path);
    await page.context().close();
  }
});

await test("the keyboard reaches everything in order, and shows where it is", async () => {
  for (const path of [pages.overview, pages.offline, pages.fleet]) {
    const page = await open(path);
    const expected = await page.locator("a[href], input:not([type=hidden]), button, summary").count();
    const order = [];
    for (let step = 0; step < expected; step += 1) {
      await page.keyboard.press("Tab");
      const at = await page.evaluate(() => {
        const all = [...document.querySelectorAll("a[href], input:not([type=hidden]), button, summary")];
        return [all.indexOf(document.activeElement), getComputedStyle(document.activeElement).outlineStyle];
      });
      assert.notEqual(at[1], "none", `${path}: the focus is visible at ${at[0]}`);
      order.push(at[0]);
    }
    assert.deepEqual(order, [...Array(expected).keys()], path);
    await page.context().close();
  }
  const page = await open(pages.overview);
  await page.locator("th a", { hasText: "/not-exported" }).focus();
  await page.keyboard.press("Enter");
  await page.waitForURL(address + pages.offline);
  assert.equal(await page.textContent("h1"), "127.0.0.1:/not-exported");
  await page.locator("summary").focus();
  await page.keyboard.press("Enter");
  assert.ok(await page.locator(".history").isVisible());
  await page.context().close();
});

await test("search, filter and details work without scripts", async () => {
  const page = await open(pages.overview, { javaScriptEnabled: false });
  await page.fill("#q", "not-exported");
  await page.click("button");
  await page.waitForURL(/\?q=not-exported/);
  assert.deepEqual(await page.locator("tbody th a").allTextContents(), ["127.0.0.1:/not-exported"]);
  await page.click("nav >> text=available");
  await page.waitForURL(/status=available/);
  assert.match(await page.textContent("main"), /None of \d+ targets matches/);
  await page.click("text=Show all targets");
  await page.waitForURL(address + "/ui");
  await page.click("tbody th a >> nth=0");
  await page.click("summary");
  assert.ok(await page.locator(".history").isVisible());
  await page.context().close();
});

await test("more targets than a page shows are on further pages", async () => {
  for (let number = 0; number < MANY; number += 1) {
    await create({ type: "nfs", filesystem_export: `127.0.0.1:/many/${number}` });
  }
  const page = await open(pages.overview, { javaScriptEnabled: false });
  assert.equal(await page.locator("tbody th a").count(), 100);
  assert.match(await page.textContent("caption"), /^Targets 1 to 100 of 135/);
  await page.click("text=Next page");
  await page.waitForURL(/page=2/);
  assert.equal(await page.locator("tbody th a").count(), MANY + 5 - 100);
  await page.context().close();
});

await test("a page says that it is old when the agent does not answer", async () => {
  const page = await open(pages.overview);
  process.kill(Number(pid), "SIGSTOP");
  try {
    assert.ok(!(await page.locator(".old").isVisible()), "new");
    const delays = await page.evaluate(() =>
      document.getAnimations().map((animation) => {
        const { delay } = animation.effect.getTiming();
        animation.currentTime = delay + 1;
        return delay;
      }),
    );
    assert.deepEqual(delays, [60_000]);
    assert.ok(await page.locator(".old").isVisible(), "old");
    assert.match(await page.textContent(".old"), /older than 60 s.*is not current/s);
    await shoot(page, "old");
  } finally {
    process.kill(Number(pid), "SIGCONT");
  }
  await page.context().close();
});

await browser.close();
refusing.close();
console.log(`${passed} passed`);

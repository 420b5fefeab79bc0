// Two people with the web chat, each in a browser profile of its own, from signing in to history after a reload. Prints
// one JSON line a step, and what the browsers complained of; keeps a picture of each step in a folder.
// node chat.mjs URL DOMAIN FIRST:PASSWORD SECOND:PASSWORD FOLDER PICTURE
import path from "node:path";
import { chromium } from "playwright-core";

const [url, domain, first, second, folder, picture] = process.argv.slice(2);
const WAIT_MS = 20_000 * Number(process.env.TIMEOUT_FACTOR ?? 1);
const complaints = [];
let asked = [];

const say = (step, more = {}) => process.stdout.write(JSON.stringify({ step, ...more }) + "\n");

const browser = await chromium.launch({
  executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
  // No name but the server's can be looked up: what the page asks of others fails, and is told.
  args: ["--no-sandbox", "--disable-dev-shm-usage", `--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE ${new URL(url).hostname}`],
});

async function open(name, viewport) {
  const context = await browser.newContext({ viewport, locale: "en-GB" });
  const page = await context.newPage();
  page.setDefaultTimeout(WAIT_MS);
  page.on("console", (message) => {
    if (message.type() === "error") complaints.push(`${name}: ${message.text()}`);
  });
  page.on("pageerror", (error) => complaints.push(`${name}: ${error}`));
  page.on("request", (request) => asked.push(request.url()));
  await page.goto(url);
  await page.waitForSelector("input[name=jid]");
  return page;
}

async function sign_in(page, person) {
  const [name, password] = person.split(":");
  await page.fill("input[name=jid]", name);
  await page.fill("input[name=password]", password);
  await page.click("form#converse-login [type=submit]");
}

// Entries of menus that open on hover or click: pressed without opening them.
const press = (page, selector) => page.locator(selector).first().evaluate((element) => element.click());
const contact = (person) => `#converse-roster [data-jid="${person.split(":")[0]}@${domain}"]`;
const shot = (page, name) => page.screenshot({ path: path.join(folder, `${name}.png`) });

async function write(page, text) {
  await page.fill("textarea.chat-textarea:visible", text);
  await page.press("textarea.chat-textarea:visible", "Enter");
}

let alice, bob;
try {
  const wide = { width: 1280, height: 800 };
  alice = await open("first", wide);
  await shot(alice, "1-login");
  await sign_in(alice, `${first.split(":")[0]}:wrong`);
  const refusal = await alice.textContent("text=password is incorrect");
  say("wrong password", { told: refusal.trim() });
  await alice.reload();
  await alice.waitForSelector("input[name=jid]");
  complaints.length = 0; // browsers call a refusal an error
  await sign_in(alice, first);
  await alice.waitForSelector("converse-user-profile");
  bob = await open("second", wide);
  await sign_in(bob, second);
  await bob.waitForSelector("converse-user-profile");
  await shot(alice, "2-signed-in");
  say("signed in");

  await press(alice, ".add-contact");
  await alice.fill("converse-add-contact-modal input[name=jid]", `${second.split(":")[0]}@${domain}`);
  await alice.click("converse-add-contact-modal form [type=submit]");
  await bob.waitForSelector(".accept-xmpp-request", { state: "attached" });
  await press(bob, ".accept-xmpp-request");
  await bob.click("converse-accept-contact-request-modal form [type=submit]");
  for (const [page, other] of [[alice, second], [bob, first]]) {
    await page.waitForSelector(`li.both:has(${contact(other).replace("#converse-roster ", "")})`);
    await page.waitForSelector(`li.online:has(${contact(other).replace("#converse-roster ", "")})`);
  }
  await shot(bob, "3-contacts");
  say("contacts of each other, and online");

  await press(alice, contact(second));
  await write(alice, "What light through yonder window breaks?");
  await press(bob, contact(first));
  await bob.waitForSelector("text=What light through yonder window breaks?");
  await bob.type("textarea.chat-textarea:visible", "Ay me");
  await alice.waitForSelector(".chat-content__notifications:has-text('typing')");
  await shot(alice, "4-typing");
  await bob.press("textarea.chat-textarea:visible", "Enter");
  await alice.waitForSelector(".chat-msg__text:has-text('Ay me')");
  say("messages and typing");

  const chooser = alice.waitForEvent("filechooser");
  await press(alice, ".fileupload");
  await (await chooser).setFiles(picture);
  await bob.waitForSelector("img.chat-image");
  await bob.waitForFunction(() => document.querySelector("img.chat-image").naturalWidth > 0);
  await shot(bob, "5-picture");
  say("a picture");

  for (const page of [alice, bob]) {
    await press(page, ".show-add-muc-modal");
    await page.fill("converse-add-muc-modal input[name=chatroom]", "verona");
    await page.click("converse-add-muc-modal form [type=submit]");
    await page.waitForSelector("converse-muc textarea.chat-textarea");
  }
  await alice.waitForSelector(`converse-muc-occupants :text("${second.split(":")[0]}")`, { state: "attached" });
  await write(bob, "In fair Verona");
  await alice.waitForSelector("converse-muc .chat-msg__text:has-text('In fair Verona')");
  await shot(alice, "6-room");
  say("a room");

  await alice.reload();
  await alice.waitForSelector("converse-user-profile, input[name=jid]");
  const again = await alice.isVisible("input[name=jid]");
  if (again) await sign_in(alice, first);
  await press(alice, contact(second));
  await alice.waitForSelector("text=What light through yonder window breaks?");
  await alice.waitForSelector(".chat-msg__text:has-text('Ay me')");
  await shot(alice, "7-after-a-reload");
  say("history after a reload", { asked_for_password: again });

  const phone = await open("phone", { width: 390, height: 844 });
  await sign_in(phone, first);
  await phone.waitForSelector("converse-user-profile");
  await press(phone, contact(second));
  await phone.waitForSelector("text=What light through yonder window breaks?");
  await shot(phone, "8-phone");
  say("history on a phone", { width: await phone.evaluate(() => document.documentElement.scrollWidth) });

  const others = asked.filter((one) => !/^(data|blob):/.test(one) && new URL(one).host !== new URL(url).host);
  say("done", { complaints, asked_of_others: others });
} catch (error) {
  for (const [name, page] of [["first", alice], ["second", bob]]) if (page) await shot(page, `failed-${name}`);
  say("failed", { error: String(error), complaints });
  process.exitCode = 1;
}
await browser.close();

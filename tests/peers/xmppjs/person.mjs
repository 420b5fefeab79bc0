// A person with @xmpp/client: signs in, does what standard input asks, one JSON array a line, and answers likewise.
// ["iq", type, to, xml] asks and answers with the result; ["message", to, text] sends a chat message; ["wait", text] answers with the next stanza that has the text;
// ["again", previd] loses the connection and tells, once it is back, how it signed in and whether the stream went on.
import readline from "node:readline";
import WebSocket from "ws";
import { client, xml } from "@xmpp/client";
import parse from "@xmpp/xml/lib/parse.js";

globalThis.WebSocket ??= WebSocket; // node has one from version 22 on

const [service, domain, username, password] = process.argv.slice(2);
const xmpp = client({ service, domain, username, password, resource: "js" });
let signedInBy = "";
xmpp.on("send", (element) => {
  if (element.is("authenticate", "urn:xmpp:sasl:2") || element.is("auth", "urn:ietf:params:xml:ns:xmpp-sasl")) {
    signedInBy = element.attrs.mechanism;
  }
});
xmpp.reconnect.delay = 50;
const heard = [];
const waiting = [];

function say(value) {
  process.stdout.write(JSON.stringify(value) + "\n");
}

function hear(stanza) {
  const text = stanza.toString();
  const index = waiting.findIndex((wanted) => text.includes(wanted));
  if (index >= 0) {
    waiting.splice(index, 1);
    say(text);
  } else {
    heard.push(text);
  }
}

async function run(words) {
  if (words[0] === "wait") {
    const index = heard.findIndex((text) => text.includes(words[1]));
    if (index >= 0) {
      say(heard.splice(index, 1)[0]);
    } else {
      waiting.push(words[1]);
    }
    return;
  }
  if (words[0] === "again") {
    const back = Promise.race([
      new Promise((resolve) => xmpp.once("online", () => resolve(false))),
      new Promise((resolve) => xmpp.streamManagement.once("resumed", () => resolve(true))),
    ]);
    if (words[1]) xmpp.streamManagement.id = words[1];
    const socket = xmpp.socket.socket ?? xmpp.socket;
    (socket.terminate ?? socket.destroy).call(socket); // of a WebSocket, of a TCP connection
    const resumed = await back;
    say({ mechanism: signedInBy, resumed, jid: xmpp.jid.toString() });
    return;
  }
  if (words[0] === "message") {
    await xmpp.send(xml("message", { to: words[1], type: "chat" }, xml("body", {}, words[2])));
    return;
  }
  const [, type, to, inner] = words;
  const attributes = to ? { type, to } : { type };
  try {
    const answer = await xmpp.iqCaller.request(xml("iq", attributes, parse(inner)));
    say(answer.toString());
  } catch (error) {
    say({ condition: error.condition || String(error) });
  }
}

xmpp.on("stanza", hear);
xmpp.on("error", (error) => process.stderr.write(`${error}\n`));
xmpp.once("online", async (address) => {
  await xmpp.send(xml("presence"));
  say(address.toString());
  readline.createInterface({ input: process.stdin }).on("line", (line) => run(JSON.parse(line)));
});
xmpp.start().catch((error) => {
  say({ condition: error.condition || String(error) });
  process.exit(1);
});

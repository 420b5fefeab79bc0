// A person with strophe.js, over BOSH or WebSocket: signs in, does what standard input asks, one JSON array a line, and
// answers likewise. ["iq", type, to, xml] asks and answers with the result; ["message", to, text] sends a chat message;
// ["wait", text] answers with the next stanza that has the text; ["close"] closes the stream.
import { createRequire } from "node:module";
import readline from "node:readline";
import { DOMParser } from "@xmldom/xmldom";
import { Strophe, $iq, $msg, $pres } from "strophe.js";

// What browsers have: requests whose answers are documents.
globalThis.XMLHttpRequest = class extends createRequire(import.meta.url)("xhr2") {
  get responseXML() {
    return this.responseText ? new DOMParser().parseFromString(this.responseText, "text/xml") : null;
  }
};
Strophe.setLogLevel(Strophe.LogLevel.ERROR);

const [service, jid, password] = process.argv.slice(2);
const connection = new Strophe.Connection(service);
const heard = [];
const waiting = [];
let has_begun = false;

function say(value) {
  process.stdout.write(JSON.stringify(value) + "\n");
}

function hear(stanza) {
  const text = Strophe.serialize(stanza);
  const index = waiting.findIndex((wanted) => text.includes(wanted));
  if (index >= 0) {
    waiting.splice(index, 1);
    say(text);
  } else {
    heard.push(text);
  }
  return true;
}

function run(words) {
  if (words[0] === "wait") {
    const index = heard.findIndex((text) => text.includes(words[1]));
    if (index >= 0) {
      say(heard.splice(index, 1)[0]);
    } else {
      waiting.push(words[1]);
    }
  } else if (words[0] === "message") {
    connection.send($msg({ to: words[1], type: "chat" }).c("body").t(words[2]));
  } else if (words[0] === "close") {
    connection.disconnect("done");
  } else {
    const [, type, to, inner] = words;
    const iq = $iq(to ? { type, to } : { type }).cnode(Strophe.xmlHtmlNode(inner).documentElement);
    connection.sendIQ(iq, hearAnswer, hearAnswer);
  }
}

function hearAnswer(stanza) {
  say(stanza === null ? { condition: "timeout" } : Strophe.serialize(stanza));
}

connection.connect(jid, password, (status, condition) => {
  if (status === Strophe.Status.CONNECTED) {
    has_begun = true;
    connection.addHandler(hear, null, "message");
    connection.addHandler(hear, null, "presence");
    connection.send($pres());
    say(connection.jid);
    readline.createInterface({ input: process.stdin }).on("line", (line) => run(JSON.parse(line)));
  } else if (status === Strophe.Status.DISCONNECTED && has_begun) {
    say({ disconnected: true });
  } else if ([Strophe.Status.AUTHFAIL, Strophe.Status.CONNFAIL, Strophe.Status.CONNTIMEOUT].includes(status)) {
    say({ condition: String(condition) });
  }
});

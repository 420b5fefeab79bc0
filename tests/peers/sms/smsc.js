// A short message centre for tests, on the SMPP server that others wrote (npm smpp).
//
//   node smsc.js '{"host": "127.0.0.1", "port": 2775, "accounts": {"esme": {"password": "p", "numbers": ["491700"]}}}'
//
// What happens is told as one JSON object a line on standard output, and what it shall do comes likewise on standard
// input. A message to a number of an account goes to that account; all others are kept here, as if by a phone.
'use strict';
const fs = require('fs');
const readline = require('readline');
const smpp = require('smpp');

const settings = JSON.parse(process.argv[2]);
const bound = new Map(); // system_id -> sessions that may receive
const sessions = new Set();
let ids = settings.first_id || 1;
const refusals = []; // status for each of the next submits
let bindStatus = 0;
let isSilent = false; // submits are read and get no answer
let reports = settings.reports || 'none'; // or a word as in stat:DELIVRD, sent for every message

const tell = (event) => process.stdout.write(JSON.stringify(event) + '\n');

function onBind(session, pdu, receives) {
  const account = settings.accounts[pdu.system_id];
  let status = bindStatus;
  if (!status && !account) status = smpp.ESME_RINVSYSID;
  if (!status && account.password !== pdu.password) status = smpp.ESME_RINVPASWD;
  tell({ event: 'bind', command: pdu.command, system_id: pdu.system_id, status });
  session.send(pdu.response({ command_status: status, system_id: 'test-smsc' }));
  if (status) return;
  session.account = pdu.system_id;
  if (receives) bound.set(pdu.system_id, [...(bound.get(pdu.system_id) || []), session]);
}

function receiver(account) {
  return (bound.get(account) || []).find((session) => session.socket.writable);
}

function onSubmit(session, pdu) {
  const status = refusals.shift() || 0;
  const id = status || isSilent ? '' : String(ids++);
  const { udh, message } = pdu.short_message;
  tell({
    event: 'submit', id, status, is_answered: !isSilent, account: session.account, at: Date.now(),
    source: pdu.source_addr, source_ton: pdu.source_addr_ton, source_npi: pdu.source_addr_npi,
    destination: pdu.destination_addr, destination_ton: pdu.dest_addr_ton, destination_npi: pdu.dest_addr_npi,
    esm_class: pdu.esm_class, data_coding: pdu.data_coding, registered_delivery: pdu.registered_delivery,
    udh: (udh || []).map((element) => element.toString('hex')), text: String(message),
  });
  if (isSilent) return;
  session.send(pdu.response({ command_status: status, message_id: id }));
  if (status) return;
  const owner = Object.keys(settings.accounts).find((name) =>
    (settings.accounts[name].numbers || []).includes(pdu.destination_addr));
  if (owner) {
    const header = udh && Buffer.concat([Buffer.from([udh.reduce((sum, part) => sum + part.length, 0)]), ...udh]);
    deliver(owner, {
      source: pdu.source_addr, source_ton: pdu.source_addr_ton, destination: pdu.destination_addr,
      destination_ton: pdu.dest_addr_ton, data_coding: pdu.data_coding, udh: header, text: message,
    });
  }
  if (reports !== 'none' && pdu.registered_delivery) report(session.account, id, reports, pdu.destination_addr, pdu.source_addr);
}

function deliver(account, order) {
  const session = receiver(account);
  if (!session) return tell({ event: 'undeliverable', tag: order.tag });
  const message = order.hex === undefined ? order.text : Buffer.from(order.hex, 'hex');
  const udh = typeof order.udh === 'string' ? Buffer.from(order.udh, 'hex') : order.udh;
  const options = {
    source_addr: order.source, source_addr_ton: order.source_ton ?? 1, source_addr_npi: 1,
    destination_addr: order.destination, dest_addr_ton: order.destination_ton ?? 1, dest_addr_npi: 1,
    data_coding: order.data_coding ?? 0, esm_class: order.esm_class || 0,
    short_message: udh ? { udh, message } : order.payload ? '' : message,
  };
  if (order.payload) options.message_payload = message;
  if (order.sar) [options.sar_msg_ref_num, options.sar_total_segments, options.sar_segment_seqnum] = order.sar;
  session.deliver_sm(options, (answer) =>
    tell({ event: 'delivered', tag: order.tag, status: answer.command_status }));
}

function report(account, id, stat, source, destination) {
  const text = `id:${id} sub:001 dlvrd:001 submit date:2601010101 done date:2601010102 stat:${stat} err:000 text:`;
  deliver(account, { source, destination, esm_class: 4, data_coding: 1, text, tag: `report ${id}` });
}

const commands = {
  deliver: (order) => deliver(order.account, order),
  report: (order) => report(order.account, order.id, order.stat, order.source, order.destination),
  refuse: (order) => refusals.push(...order.statuses),
  refuse_binds: (order) => { bindStatus = order.status; },
  be_silent: (order) => { isSilent = order.is; },
  report_all: (order) => { reports = order.stat; },
  cut: () => sessions.forEach((session) => session.destroy()),
};

const options = settings.key ? { key: fs.readFileSync(settings.key), cert: fs.readFileSync(settings.cert) } : {};
const server = smpp.createServer(options, (session) => {
  sessions.add(session);
  session.on('error', () => session.destroy());
  session.on('close', () => {
    sessions.delete(session);
    const rest = (bound.get(session.account) || []).filter((other) => other !== session);
    bound.set(session.account, rest);
    tell({ event: 'closed', account: session.account || '' });
  });
  session.on('bind_transceiver', (pdu) => onBind(session, pdu, true));
  session.on('bind_receiver', (pdu) => onBind(session, pdu, true));
  session.on('bind_transmitter', (pdu) => onBind(session, pdu, false));
  session.on('submit_sm', (pdu) => onSubmit(session, pdu));
  session.on('enquire_link', (pdu) => { tell({ event: 'enquire_link' }); session.send(pdu.response()); });
  session.on('unbind', (pdu) => { tell({ event: 'unbind' }); session.send(pdu.response()); session.close(); });
});
server.listen(settings.port, settings.host, () => tell({ event: 'listening' }));
readline.createInterface({ input: process.stdin }).on('line', (line) => {
  const order = JSON.parse(line);
  commands[order.do](order);
}).on('close', () => process.exit(0));

// Starts Converse.js as the server has configured it (page.py). It asks nobody but the server: what it would ask of
// others (lists of providers and domains, logos under the login form, media of other hosts) is off.
const { websocket_path, bosh_path, ...settings } = JSON.parse(document.body.dataset.settings);
const origin = window.location.origin;

// Logos of others. A name that is taken is left alone.
customElements.define("converse-footer", class extends HTMLElement {});

// Where a contact request is accepted, Converse.js 14.0.0 calls contact.subscribe(), which it has for other things: nobody
// is asked, and the contact stays one-sided. It means subscribeToPresence().
converse.plugins.add("stentor", {
  dependencies: ["converse-roster"],
  initialize() {
    const { prototype } = this._converse.exports.RosterContact;
    const { subscribe } = prototype;
    prototype.subscribe = function (...observers) {
      return observers.length ? subscribe.apply(this, observers) : this.subscribeToPresence();
    };
  },
});

converse.initialize({
  ...settings,
  websocket_url: `${origin.replace(/^http/, "ws")}${websocket_path}`,
  bosh_service_url: `${origin}${bosh_path}`,
  discover_connection_methods: false,
  xmpp_providers_url: "",
  autocomplete_providers_url: "",
  render_media: [window.location.hostname, ...settings.render_media],
  view_mode: "fullscreen",
  auto_away: 0,
  muc_nickname_from_jid: true,
  whitelisted_plugins: ["stentor"],
});

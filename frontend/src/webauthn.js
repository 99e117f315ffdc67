// Passkeys: asks the browser and puts its answer into the form. Options come from the server as JSON in a <script type="application/json">
// or from data-options-url. Knows nothing of accounts.

async function fill(form, credential) {
  form.querySelector("[name=credential]").value = JSON.stringify(credential);
  form.submit();
}

function complain(form, error) {
  const place = form.querySelector("[data-passkey-error]");
  if (place) {
    place.hidden = false;
    place.querySelector("[data-text]").textContent = error.name === "NotAllowedError" ? place.dataset.refused : place.dataset.failed;
  }
}

async function options(form) {
  const island = form.querySelector("script[type='application/json']") ?? document.getElementById(form.dataset.passkeyOptions);
  if (island) return JSON.parse(island.textContent);
  const answer = await fetch(form.dataset.optionsUrl, { headers: { Accept: "application/json", "X-Requested-With": "XMLHttpRequest" } });
  if (!answer.ok) throw new Error(String(answer.status));
  return (await answer.json()).request_options;
}

export function webauthn(page) {
  for (const form of page.querySelectorAll("form[data-passkey]")) {
    const button = form.querySelector("[data-passkey-button]");
    if (!window.PublicKeyCredential?.parseRequestOptionsFromJSON) {
      button.disabled = true;
      const place = form.querySelector("[data-passkey-error]");
      if (place) { place.hidden = false; place.querySelector("[data-text]").textContent = place.dataset.missing; }
      continue;
    }
    button.addEventListener("click", async (event) => {
      event.preventDefault();
      if (!form.reportValidity()) return;
      try {
        const asked = await options(form);
        const publicKey = form.dataset.passkey === "create"
          ? PublicKeyCredential.parseCreationOptionsFromJSON(asked.publicKey)
          : PublicKeyCredential.parseRequestOptionsFromJSON(asked.publicKey);
        const made = form.dataset.passkey === "create" ? await navigator.credentials.create({ publicKey }) : await navigator.credentials.get({ publicKey });
        await fill(form, made);
      } catch (error) {
        complain(form, error);
      }
    });
  }
}

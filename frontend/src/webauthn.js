// Passkeys: asks the browser and puts its answer into the form. Options come from the server as JSON in a <script type="application/json">
// (its id is in data-passkey-options) or from data-options-url. Knows nothing of accounts.

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
  if (form.dataset.optionsUrl) {
    const answer = await fetch(form.dataset.optionsUrl, { headers: { Accept: "application/json", "X-Requested-With": "XMLHttpRequest" } });
    if (!answer.ok) throw new Error(String(answer.status));
    return (await answer.json()).request_options.publicKey;
  }
  const island = JSON.parse(document.getElementById(form.dataset.passkeyOptions).textContent);
  return (island.creation_options ?? island.request_options).publicKey;
}

function create(form, asked) {
  const alone = form.querySelector("input[type=checkbox][name=passwordless]")?.checked ?? true;
  const wishes = asked.authenticatorSelection ?? {};
  const chosen = { ...wishes, residentKey: alone ? "required" : "discouraged", requireResidentKey: alone };
  if (alone) chosen.userVerification = "required";
  const publicKey = PublicKeyCredential.parseCreationOptionsFromJSON({ ...asked, authenticatorSelection: chosen });
  return navigator.credentials.create({ publicKey });
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
        const made = form.dataset.passkey === "create"
          ? await create(form, asked)
          : await navigator.credentials.get({ publicKey: PublicKeyCredential.parseRequestOptionsFromJSON(asked) });
        await fill(form, made);
      } catch (error) {
        complain(form, error);
      }
    });
  }
}

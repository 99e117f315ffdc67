// Sends one message with nodemailer: node send.js PORT MODE USER SECRET TEST_ID RECIPIENT; MODE is starttls, implicit or clear.
const nodemailer = require("nodemailer");

const [port, mode, user, pass, testId, recipient] = process.argv.slice(2);
const transport = nodemailer.createTransport({
  host: "127.0.0.1",
  port: Number(port),
  secure: mode === "implicit",
  requireTLS: mode === "starttls",
  ignoreTLS: mode === "clear",
  tls: { rejectUnauthorized: false },
  auth: { user, pass },
});

transport
  .sendMail({
    from: "Printer <printer@acme.example>",
    to: recipient,
    subject: "Blåbærgrød fra nodemailer",
    text: "Blåbærgrød\n.\n..\nend",
    html: "<p>Blåbærgrød</p>",
    headers: { "X-Test-Id": testId },
    attachments: [{ filename: "æble.bin", content: Buffer.alloc(100000, 7) }],
  })
  .then((info) => {
    console.log(info.response);
    transport.close();
  })
  .catch((error) => {
    console.error(error.message);
    process.exit(1);
  });

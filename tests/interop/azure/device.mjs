// Microsoft's device SDK over HTTPS: sends a message, and a batch, and says what came of it.
// usage: device.mjs CONNECTION_STRING WRONG_CONNECTION_STRING
import { createRequire } from "node:module";

const require = createRequire(import.meta.url);
const { Client, Message } = require("azure-iot-device");
const { NoRetry } = require("azure-iot-common");
const { Http } = require("azure-iot-device-http");

const [good, wrong] = process.argv.slice(2);

function message(text) {
  const made = new Message(text);
  made.messageId = "m-1";
  made.contentType = "application/json";
  made.contentEncoding = "utf-8";
  made.properties.add("event", "temp%2Fa");
  return made;
}

async function said(connection, send) {
  const client = Client.fromConnectionString(connection, Http);
  client.setRetryPolicy(new NoRetry());
  try {
    const result = await send(client);
    return result?.constructor?.name ?? "sent";
  } catch (problem) {
    return `${problem.name}: ${problem.message}`;
  }
}

console.log(
  JSON.stringify({
    sent: await said(good, (client) => client.sendEvent(message('{"data":"theirs"}'))),
    wrong: await said(wrong, (client) => client.sendEvent(message('{"data":"never"}'))),
  }),
);
// The SDK keeps timers.
process.exit(0);

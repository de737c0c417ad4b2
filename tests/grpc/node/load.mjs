// A gRPC client of Node.js without generated code: a stream of many small messages, then many calls
// in turn, over one connection.
//
//     load.mjs GATEWAY MESSAGES CALLS
//
// The server is that of tests/grpc/calls.py. Exits with 1 if a call failed, or if the connection
// was interrupted, which would change the channel's state.
import { Client, connectivityState, credentials } from "@grpc/grpc-js";

const [address, messages, calls] = [process.argv[2], Number(process.argv[3]), Number(process.argv[4])];
const client = new Client(address, credentials.createInsecure());
const channel = client.getChannel();
const bytes = (value) => value;
const deadline = (seconds) => ({ deadline: Date.now() + seconds * 1000 });

function unary(message) {
  return new Promise((resolve, reject) => {
    const done = (error, response) => (error ? reject(error) : resolve(response));
    client.makeUnaryRequest("/plain/Unary", bytes, bytes, Buffer.from(message), deadline(10), done);
  });
}

async function stream() {
  const call = client.makeServerStreamRequest("/plain/Down", bytes, bytes, Buffer.from(`${messages}`), deadline(300));
  let received = 0;
  for await (const message of call) {
    if (message.toString() !== `${received}`) throw new Error(`message ${received} is ${message}`);
    received += 1;
  }
  if (received !== messages) throw new Error(`${received} of ${messages} messages`);
}

// Resolves with the next state that is not `state`, unless the work is done before.
function watch(state) {
  channel.watchConnectivityState(state, Infinity, (error) => {
    if (error) return;
    const next = channel.getConnectivityState(false);
    interruptions.push(next);
    watch(next);
  });
}

const interruptions = [];
try {
  await new Promise((resolve, reject) => client.waitForReady(Date.now() + 5000, (error) => (error ? reject(error) : resolve())));
  watch(connectivityState.READY);
  await stream();
  for (let call = 0; call < calls; call += 1) {
    const answer = await unary("hello");
    if (answer.toString() !== "re: hello") throw new Error(`the answer is ${answer}`);
  }
  if (interruptions.length > 0) throw new Error(`the connection was interrupted: states ${interruptions}`);
  console.log(`ok: ${messages} messages and ${calls} calls on one connection`);
  process.exit(0);
} catch (error) {
  console.error(`${error}`);
  process.exit(1);
}

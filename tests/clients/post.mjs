// Sends 8 MB to HOST:PORT PATH, COUNT times, by HTTP/1.1 or HTTP/2 (h1 or h2), and prints the
// statuses. Each request has a new connection.
import http from "node:http";
import http2 from "node:http2";

const [address, path, count, version] = process.argv.slice(2);
const body = Buffer.alloc(8_000_000, "x");

function overHttp1() {
  return new Promise((resolve) => {
    const request = http.request(`http://${address}${path}`, { method: "POST", agent: false }, (response) => {
      response.resume();
      resolve(response.statusCode);
    });
    request.on("error", (error) => resolve(String(error)));
    request.end(body);
  });
}

function overHttp2() {
  return new Promise((resolve) => {
    const session = http2.connect(`http://${address}`);
    session.on("error", (error) => resolve(String(error)));
    const stream = session.request({ ":method": "POST", ":path": path });
    let status = "no response";
    let text = "";
    const finish = () => {
      resolve(text === "" ? `${status} without a body` : status);
      session.destroy();
    };
    stream.on("response", (headers) => (status = headers[":status"]));
    stream.on("data", (data) => (text += data));
    stream.on("error", (error) => (status = String(error)));
    stream.on("end", finish);
    stream.on("close", finish);
    stream.end(body);
  });
}

for (let left = Number(count); left > 0; left -= 1) {
  console.log(await (version === "h2" ? overHttp2() : overHttp1()));
}

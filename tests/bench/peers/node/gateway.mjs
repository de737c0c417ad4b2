// The Node gateway: fastify and its proxy plugin, without a logger. /plain has no filter; /filter
// runs the same filter as guests/*/api-key. The argument is the upstream's URL. Prints its port.
import proxy from "@fastify/http-proxy";
import fastify from "fastify";

const upstream = process.argv[2];
const app = fastify({ logger: false, keepAliveTimeout: 120_000, connectionTimeout: 0 });
const undici = { connections: 256, pipelining: 1, keepAliveTimeout: 120_000 };

await app.register(proxy, { upstream, prefix: "/plain", rewritePrefix: "/plain", undici });
await app.register(proxy, {
  upstream,
  prefix: "/filter",
  rewritePrefix: "/filter",
  undici,
  preHandler(request, reply, done) {
    if (request.headers["x-api-key"] !== "s3cret") {
      reply.code(401).send({ error: "missing or wrong api key" });
      return;
    }
    done();
  },
  replyOptions: {
    rewriteRequestHeaders(_request, headers) {
      headers["x-user"] = "alice";
      if (headers.authorization !== undefined) headers.authorization = "REDACTED";
      if (headers.cookie !== undefined) headers.cookie = "REDACTED";
      return headers;
    },
  },
});
await app.listen({ host: "127.0.0.1", port: 0 });
console.log(app.server.address().port);

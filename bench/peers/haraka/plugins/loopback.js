'use strict'
// Outbound.md, "The simplest way … a custom plugin", and its hook get_mx: relay for loopback, everything to one next hop.

exports.hook_connect = (next, connection) => {
  connection.relaying = true
  next()
}

exports.hook_get_mx = (next) => {
  next(OK, { priority: 0, exchange: '127.0.0.1', port: @next_hop_port@ })
}

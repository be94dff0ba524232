// kafkajs + avsc: `eachBatch`, dead letters sent together, offsets committed by the client after each batch.
'use strict'
const { Kafka, logLevel } = require('kafkajs')
const avro = require('avsc')

const [bootstrap, topic, deadLetters, groupId, countText, settings] = process.argv.slice(2)
const count = Number(countText)
const ours = settings === 'ours'
const MAX_ATTEMPTS = 3
const type = avro.Type.forSchema({
  type: 'record',
  name: 'Order',
  fields: [
    { name: 'orderId', type: 'string' },
    { name: 'product', type: 'string' },
    { name: 'price', type: 'float' },
  ],
})

// Every twentieth order fails always, every other fifth at the first attempt.
function handle(order, attempt) {
  const number = Number(order.orderId)
  if (number % 20 === 0 || (number % 10 === 5 && attempt === 1)) throw new Error('the service is not there')
}

function succeeds(order) {
  for (let attempt = 1; attempt <= MAX_ATTEMPTS; attempt++) {
    try {
      handle(order, attempt)
      return true
    } catch (error) {
      // the next attempt
    }
  }
  return false
}

async function main() {
  const kafka = new Kafka({ brokers: [bootstrap], logLevel: logLevel.NOTHING })
  const consumer = kafka.consumer({ groupId, ...(ours ? { sessionTimeout: 10000, maxWaitTimeInMs: 100 } : {}) })
  const producer = kafka.producer(ours ? { idempotent: true } : {})
  let good = 0
  let dead = 0
  let total = 0
  let start = 0n
  await producer.connect()
  await consumer.connect()
  await consumer.subscribe({ topic, fromBeginning: true })
  const finished = new Promise((resolve, reject) => {
    consumer.on(consumer.events.CRASH, (event) => reject(event.payload.error))
    consumer.on(consumer.events.COMMIT_OFFSETS, () => {
      if (good + dead === count) resolve(process.hrtime.bigint())
    })
  })
  await consumer.run({
    eachBatch: async ({ batch, heartbeat }) => {
      start = start || process.hrtime.bigint()
      const letters = []
      for (const message of batch.messages) {
        const order = type.fromBuffer(message.value)
        if (succeeds(order)) {
          total += order.price
          good += 1
        } else {
          letters.push({ key: message.key, value: message.value })
        }
      }
      if (letters.length) await producer.send({ topic: deadLetters, messages: letters })
      dead += letters.length
      await heartbeat()
    },
  })
  const seconds = Number((await finished) - start) / 1e9
  console.log(JSON.stringify({ count: good, total, dead, seconds }))
  await consumer.disconnect()
  await producer.disconnect()
}

main().catch((error) => {
  console.error(String(error))
  process.exit(1)
})
